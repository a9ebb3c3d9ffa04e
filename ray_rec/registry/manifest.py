"""What a version says about itself: its parent, the offsets it has learned from, its files.

The content digest covers tensors, rows, offsets and configuration, and of a delta the digest of
what it builds on; nothing that differs between two makings of the same version (times, metrics,
places, how a file was written).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec
import torch

from ray_rec.errors import RegistryError, VersionCorrupt
from ray_rec.registry.series import Base

SCHEMA = 1
"""Number of the manifest's own shape; a reader refuses one it does not know."""

TopicOffsets = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class Gate:
    """What the gate decided about a candidate, why, and the numbers it looked at."""

    passed: bool
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """What the maker of a version knows about it.

    `windows`: first and last window learned since `parent`, and `plans` these windows as JSON
    objects, as far as they are known; `offsets`: topic -> partition -> next offset to be learned;
    `encoder`: digest of the text encoder; `config`: the resolved configuration that the content
    follows from, `run` the rest of it (places, sizes of the cluster, serving), JSON values only;
    `base`: the version that a delta holds the changes of, None for a full one.
    """

    parent: int | None
    windows: tuple[int, int]
    offsets: TopicOffsets
    config: Mapping[str, Any]
    encoder: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    gate: Gate = field(default_factory=lambda: Gate(passed=True, reason="no gate"))
    base: Base | None = None
    plans: tuple[Mapping[str, Any], ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest(Draft):
    """A published version; `files` maps a file's name to its sha256, `created_at` is ms UTC."""

    version: int = 0
    kind: Literal["full", "delta"] = "full"
    created_at: int = 0
    promoted: bool = False
    num_items: int = 0
    schema: int = SCHEMA
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def as_base(self) -> Base:
        """Return what a delta on top of this version names."""
        return Base(self.version, self.digest, self.num_items)

    def to_json(self) -> bytes:
        """Return indented JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Read a manifest; VersionCorrupt if it is not one, RegistryError if of another schema."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise VersionCorrupt(
            f"{where} is not a manifest ({error}); remove that version's folder or restore it"
        ) from None
    if manifest.schema != SCHEMA:
        raise RegistryError(
            f"{where} has manifest schema {manifest.schema}, this release reads {SCHEMA}: "
            "use the release that wrote it"
        )
    return manifest


def content_digest(
    tensors: Mapping[str, torch.Tensor],
    rows: Sequence[str],
    offsets: TopicOffsets,
    config: Mapping[str, Any],
    base: Base | None = None,
) -> str:
    """Return the sha256 (hex) of a version's content, independent of dict order and of metadata.

    Of a delta, `rows` are those that it adds to its base's.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    plain = {topic: dict(partitions) for topic, partitions in offsets.items()}
    for part in (list(rows), plain, dict(config), None if base is None else base.digest):
        digest.update(b"|")
        digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()
