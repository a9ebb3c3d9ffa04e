"""Model versions and state snapshots: publish, follow, roll back, retain."""

from ray_rec.registry.manifest import Draft, Gate, Manifest, content_digest
from ray_rec.registry.registry import Current, Registry, Version
from ray_rec.registry.snapshots import Snapshot

__all__ = [
    "Current",
    "Draft",
    "Gate",
    "Manifest",
    "Registry",
    "Snapshot",
    "Version",
    "content_digest",
]
