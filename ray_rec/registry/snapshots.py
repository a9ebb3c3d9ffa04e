"""Snapshots of the feature state: where a new replica starts instead of reading whole topics."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from ray_rec.errors import VersionCorrupt, VersionMissing
from ray_rec.registry.files import table_from_bytes, table_to_bytes
from ray_rec.registry.series import Base, Series, sha256
from ray_rec.registry.store import Store

KEEP = 3
"""Snapshots that are kept; a reader of an older one has had two publications to finish."""

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Snapshot:
    """State before window `number`; `offsets`: topic -> partition -> next offset to follow.

    `segments`: the tables of a whole state, then those of each change since, in order.
    """

    number: int
    offsets: dict[str, dict[int, int]]
    segments: list[dict[str, pa.Table]]


@dataclass(frozen=True)
class _Manifest:
    number: int
    created_at: int
    offsets: dict[str, dict[int, int]]
    files: dict[str, str]
    base: Base | None
    digest: str


class Snapshots:
    """The `snapshots/` folder of a registry."""

    def __init__(self, store: Store) -> None:
        self._series = Series(store, "snapshots", _parse)

    def publish(
        self,
        number: int,
        tables: Tables,
        offsets: Mapping[str, Mapping[int, int]],
        base: int | None = None,
        also: Collection[int] = (),
    ) -> None:
        """Store the tables of a state, or with `base` of its changes since that snapshot.

        One that exists is left as it is. The newest `KEEP` stay, those in `also`, and what they
        build on.

        Raises:
            VersionMissing: there is no snapshot `base`, or not all that it builds on.
        """
        if number not in self._series.numbers():
            below = None if base is None else self._base(number, base)
            files = {f"{name}.arrow": table_to_bytes(table) for name, table in tables.items()}
            digests = {name: sha256(data) for name, data in files.items()}
            places = {topic: dict(partitions) for topic, partitions in offsets.items()}
            now, digest = time.time_ns() // 1_000_000, _digest(digests, places, below)
            manifest = _Manifest(number, now, places, digests, below, digest)
            self._series.write(number, files, msgspec.json.encode(manifest))
        self._series.remove_all_but({*self._series.numbers()[-KEEP:], *also, number})

    def _base(self, number: int, base: int) -> Base:
        found = Base(base, self._series.manifest(base).digest)
        self._series.check_base(number, found)
        return found

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot that is whole with all it builds on, None without one."""
        found = (self.get(number) for number in reversed(self._series.numbers()))
        return next((snapshot for snapshot in found if snapshot is not None), None)

    def get(self, number: int) -> Snapshot | None:
        """Return a snapshot, None when it is not there, damaged, or removed under the reader."""
        try:
            chain = self._series.chain(number)
            segments = [_tables(self._series.read(at, manifest)) for at, manifest in chain]
        except (VersionMissing, VersionCorrupt):
            return None
        return Snapshot(number, chain[-1][1].offsets, segments)


def _tables(files: Mapping[str, bytes]) -> dict[str, pa.Table]:
    return {name.removesuffix(".arrow"): table_from_bytes(data) for name, data in files.items()}


def _digest(files: Mapping[str, str], offsets: Mapping[str, Any], base: Base | None) -> str:
    content = [files, offsets, None if base is None else base.digest]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parse(raw: bytes, where: str) -> _Manifest:
    try:
        return msgspec.json.decode(raw, type=_Manifest)
    except msgspec.MsgspecError as error:
        raise VersionCorrupt(f"{where} is not a manifest ({error})") from None
