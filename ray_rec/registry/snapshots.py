"""Snapshots of the feature state: where a new replica starts instead of reading whole topics."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from ray_rec.errors import VersionCorrupt
from ray_rec.registry.files import table_from_bytes, table_to_bytes
from ray_rec.registry.store import Store

_MANIFEST = "manifest.json"
KEEP = 3
"""Snapshots that are kept; a reader of an older one has had two publications to finish."""


@dataclass(frozen=True)
class Snapshot:
    """State before window `number`; `offsets`: topic -> partition -> next offset to follow."""

    number: int
    offsets: dict[str, dict[int, int]]
    tables: dict[str, pa.Table]


@dataclass(frozen=True)
class _Manifest:
    number: int
    created_at: int
    offsets: dict[str, dict[int, int]]
    files: dict[str, str]


class Snapshots:
    """The `snapshots/` folder of a registry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def publish(
        self, number: int, tables: Mapping[str, pa.Table], offsets: Mapping[str, Mapping[int, int]]
    ) -> None:
        """Store the tables of `FeatureState.snapshot()`; one that exists is left as it is."""
        if number in self._numbers():
            return
        files = {f"{name}.arrow": table_to_bytes(table) for name, table in tables.items()}
        manifest = _Manifest(
            number,
            time.time_ns() // 1_000_000,
            {topic: dict(partitions) for topic, partitions in offsets.items()},
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        )
        files[_MANIFEST] = msgspec.json.encode(manifest)
        self._store.write_folder(_folder(number), files, marker=_MANIFEST)
        for old in self._numbers()[:-KEEP]:
            self._store.remove_folder(_folder(old), marker=_MANIFEST)

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot whose files all have their digests, None without one."""
        found = (self.get(number) for number in reversed(self._numbers()))
        return next((snapshot for snapshot in found if snapshot is not None), None)

    def get(self, number: int) -> Snapshot | None:
        """Return a snapshot, None when it is not there, damaged, or removed under the reader."""
        try:
            return self._load(number)
        except VersionCorrupt:
            return None

    def _numbers(self) -> list[int]:
        return [
            int(name)
            for name in self._store.names("snapshots")
            if name.isdigit() and self._store.read(f"snapshots/{name}/{_MANIFEST}") is not None
        ]

    def _load(self, number: int) -> Snapshot:
        raw = self._store.read(f"{_folder(number)}/{_MANIFEST}")
        try:
            manifest = msgspec.json.decode(raw or b"", type=_Manifest)
        except msgspec.MsgspecError as error:
            raise VersionCorrupt(f"snapshot {number} has no readable manifest ({error})") from None
        tables = {}
        for name, digest in manifest.files.items():
            data = self._store.read(f"{_folder(number)}/{name}")
            if data is None or hashlib.sha256(data).hexdigest() != digest:
                raise VersionCorrupt(f"{name} of snapshot {number} has not its manifest's digest")
            tables[name.removesuffix(".arrow")] = table_from_bytes(data)
        return Snapshot(number, manifest.offsets, tables)


def _folder(number: int) -> str:
    return f"snapshots/{number:08d}"
