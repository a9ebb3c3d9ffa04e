"""Model versions and state snapshots: publish, follow, roll back, retain."""

from ray_rec.registry.current import Current
from ray_rec.registry.manifest import Draft, Gate, Manifest, content_digest
from ray_rec.registry.registry import Registry
from ray_rec.registry.series import Base
from ray_rec.registry.snapshots import Snapshot
from ray_rec.registry.version import Version

__all__ = [
    "Base",
    "Current",
    "Draft",
    "Gate",
    "Manifest",
    "Registry",
    "Snapshot",
    "Version",
    "content_digest",
]
