"""Which records were seen before: keys with event times, kept for the deduplication horizon.

Sorted runs of geometric size: a lookup searches a handful of arrays, adding five keys to millions
costs microseconds, and what fell behind the horizon goes when runs are merged.
"""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import Bool, Int64, UInt64, first_of_groups, numbers, table_of

_NEVER = np.iinfo(np.int64).min // 2


class Seen:
    """Keys (64-bit hashes) seen within `within_ms` of event time."""

    def __init__(self, within_ms: int) -> None:
        self._within_ms = within_ms
        self._runs: list[tuple[UInt64, Int64]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def latest(self, keys: UInt64) -> Int64:
        """Return when each key was last seen (event time), far in the past when never."""
        out = np.full(len(keys), _NEVER, np.int64)
        for run, ts in self._runs:
            place = np.searchsorted(run, keys, side="right") - 1
            found = (place >= 0) & (run[place] == keys)
            out = np.where(found, np.maximum(out, ts[place]), out)
        return out

    def is_new(self, keys: UInt64, ts: Int64, watermark_ms: int) -> Bool:
        """Return which rows, in order of arrival, are the first of their key; remember those.

        A row repeats another when the key is the same, the event times lie within `within_ms`, and
        the other is not older than the watermark less `within_ms`.
        """
        horizon = watermark_ms - self._within_ms
        latest = self.latest(keys)
        repeats: Bool = (np.abs(ts - latest) <= self._within_ms) & (latest >= horizon)
        new = ~repeats & self._first_in_batch(keys, ts)
        self._add(keys[new], ts[new], horizon)
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

    def _add(self, keys: UInt64, ts: Int64, horizon: int) -> None:
        if not len(keys):
            return
        run = _sorted(keys, ts)
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):
            other = self._runs.pop()
            fresh = other[1] >= horizon
            both = zip(run, other, strict=True)
            merged = [np.concatenate([mine, theirs[fresh]]) for mine, theirs in both]
            run = _sorted(merged[0], merged[1])
        self._runs.append(run)
        if self._runs[0][1].max() < horizon:
            self._runs.pop(0)

    def snapshot(self) -> pa.Table:
        """Return all keys with their times, sorted."""
        runs = [*self._runs, (np.zeros(0, np.uint64), np.zeros(0, np.int64))]
        keys, ts = _sorted(*(np.concatenate(part) for part in zip(*runs, strict=True)))
        return table_of({"key": keys, "ts": ts})

    @classmethod
    def restore(cls, within_ms: int, table: pa.Table) -> "Seen":
        """Return the keys that `snapshot` was taken of."""
        out = cls(within_ms)
        if table.num_rows:
            out._runs = [(numbers(table, "key"), numbers(table, "ts"))]
        return out


def _sorted(keys: UInt64, ts: Int64) -> tuple[UInt64, Int64]:
    order = np.lexsort((ts, keys))
    return keys[order], ts[order]
