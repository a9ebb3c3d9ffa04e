"""Which records were seen before: keys with event times, kept for the deduplication horizon.

Sorted runs of geometric size: a lookup searches a handful of arrays, and adding five keys to
millions costs microseconds. What fell behind the horizon goes in strides, a sixteenth of it.
"""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import Bool, Int64, UInt64, first_of_groups, numbers, table_of
from ray_rec.features.part import Part

_NEVER = np.iinfo(np.int64).min // 2
_STRIDES = 16


class Seen(Part):
    """Keys (64-bit hashes) seen within `within_ms` of event time."""

    def __init__(self, within_ms: int) -> None:
        super().__init__()
        self._within_ms = within_ms
        self._stride_ms = max(1, within_ms // _STRIDES)
        self._kept_from_ms = _NEVER
        self._told, self._new = _Runs(), _Runs()  # apart, so that the new can be told alone

    def __len__(self) -> int:
        return len(self._told) + len(self._new)

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and times."""
        return 16 * len(self)

    def latest(self, keys: UInt64) -> Int64:
        """Return when each key was last seen (event time), far in the past when never."""
        return np.maximum(self._told.latest(keys), self._new.latest(keys))

    def is_new(self, keys: UInt64, ts: Int64, watermark_ms: int) -> Bool:
        """Return which rows, in order of arrival, are the first of their key; remember those.

        A row repeats another when the key is the same, the event times lie within `within_ms`, and
        the other is not older than the watermark less `within_ms`.
        """
        horizon = watermark_ms - self._within_ms
        self._forget(horizon - horizon % self._stride_ms)
        latest = self.latest(keys)
        repeats: Bool = (np.abs(ts - latest) <= self._within_ms) & (latest >= horizon)
        new = ~repeats & self._first_in_batch(keys, ts)
        kept = new & (ts >= self._kept_from_ms)
        self._new.add(keys[kept], ts[kept])
        return new

    def _first_in_batch(self, keys: UInt64, ts: Int64) -> Bool:
        order = np.argsort(keys, kind="stable")
        firsts = first_of_groups(keys[order])
        first = np.zeros(len(keys), np.int64)
        first[firsts] = firsts
        first = order[np.maximum.accumulate(first)] if len(keys) else first
        out = np.empty(len(keys), np.bool_)
        out[order] = (first == order) | (np.abs(ts[order] - ts[first]) > self._within_ms)
        return out

    def _forget(self, before_ms: int) -> None:
        if before_ms > self._kept_from_ms:
            self._kept_from_ms = before_ms
            self._told.forget(before_ms)
            self._new.forget(before_ms)

    def _segment(self, whole: bool) -> pa.Table:
        """Keys with their times, sorted."""
        new, self._new = self._new.all(), _Runs()
        self._told.add(*new)
        keys, ts = self._told.all() if whole else new
        kept_from = {"kept_from_ms": str(self._kept_from_ms)}
        return table_of({"key": keys, "ts": ts}).replace_schema_metadata(kept_from)

    def _load(self, table: pa.Table) -> None:
        keys, ts = numbers(table, "key"), numbers(table, "ts")
        kept = ts >= self._kept_from_ms
        self._told.add(keys[kept], ts[kept])
        self._forget(int(table.schema.metadata[b"kept_from_ms"]))


class _Runs:
    """Keys and times in sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[tuple[UInt64, Int64]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: UInt64, ts: Int64) -> None:
        """Take keys in any order."""
        if not len(keys):
            return
        run = _sorted(keys, ts)
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):
            run = _merged(run, self._runs.pop())
        self._runs.append(run)

    def latest(self, keys: UInt64) -> Int64:
        """Return the newest time of each key, far in the past when there is none."""
        out = np.full(len(keys), _NEVER, np.int64)
        for run, ts in self._runs:
            place = np.searchsorted(run, keys, side="right") - 1
            found = (place >= 0) & (run[place] == keys)
            out = np.where(found, np.maximum(out, ts[place]), out)
        return out

    def forget(self, before_ms: int) -> None:
        """Drop what is older."""
        kept = [(keys[ts >= before_ms], ts[ts >= before_ms]) for keys, ts in self._runs]
        self._runs = []
        for keys, ts in kept:
            self.add(keys, ts)

    def all(self) -> tuple[UInt64, Int64]:
        """Return all keys with their times, sorted."""
        out = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
        for run in reversed(self._runs):
            out = _merged(out, run)
        return out


def _merged(*runs: tuple[UInt64, Int64]) -> tuple[UInt64, Int64]:
    return _sorted(*(np.concatenate(part) for part in zip(*runs, strict=True)))


def _sorted(keys: UInt64, ts: Int64) -> tuple[UInt64, Int64]:
    """Return keys and times by key, then time; a stable sort takes sorted runs as they are."""
    order = np.argsort(keys, kind="stable")
    back = ts[order[1:]] < ts[order[:-1]]
    if (back & (keys[order[1:]] == keys[order[:-1]])).any():
        order = np.lexsort((ts, keys))
    return keys[order], ts[order]
