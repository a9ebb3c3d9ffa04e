"""How often each item was taken lately, over several horizons, and how far it is promoted now.

Counts decay exponentially. They are kept scaled to a reference time, so an event adds
2 ** ((ts - reference) / half_life) whenever it arrives: late ones count as if in time, and nothing
has to be touched as time passes.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64, grown, numbers, table_of
from ray_rec.features.config import DAY_MS
from ray_rec.features.part import Marks, Part
from ray_rec.features.promotions import Promotions

_MAX_EXPONENT = 256.0
"""Rebase once a scaled count may exceed 2 ** 256; float64 would end at 2 ** 1023."""


class Popularity(Part):
    """Decayed counts of N items over H half-lives, and how far they are promoted in C channels.

    Both are told together, promotions first (now, as a rule): P = 2·C + H numbers of an item.
    """

    def __init__(self, half_lives_days: Sequence[float], num_promotions: int = 0) -> None:
        super().__init__()
        self.latest_ms = 0
        self.num_items = 0
        self._half_lives = np.array(half_lives_days) * DAY_MS
        self._reference_ms = 0
        self._scaled: list[Float64] = [np.zeros(0) for _ in half_lives_days]
        self._promotions = Promotions(num_promotions)
        self._cached: tuple[int, Float32] | None = None
        self._uncached, self._changed = Marks(), Marks()

    @classmethod
    def of(cls, features: Float32, at_ms: int, half_lives_days: Sequence[float]) -> Self:
        """Return the counts that give these features [N, P] at a time, the latest event's."""
        told = features.shape[1] - len(half_lives_days)
        out = cls(half_lives_days)
        out._promotions = Promotions.of(features[:, :told], at_ms)
        out.grow(len(features))
        out.latest_ms = out._reference_ms = at_ms
        for scaled, feature in zip(out._scaled, features.T[told:], strict=True):
            scaled[: len(features)] = np.expm1(feature.astype(np.float64))
        return out

    @property
    def num_bytes(self) -> int:
        """Bytes of all counts and promotions."""
        return 8 * len(self._scaled) * self.num_items + self._promotions.num_bytes

    def grow(self, num_items: int) -> None:
        """Make room for the rows 0 … num_items-1, uncounted."""
        if num_items > self.num_items:
            self._scaled = [grown(scaled, num_items, 0.0) for scaled in self._scaled]
            self._promotions.grow(num_items)
            self._mark(np.arange(self.num_items, num_items))
            self.num_items = num_items

    def add(self, item: AnyArray, ts: Int64) -> None:
        """Count one event for each item row at its event time; the rows must have been grown."""
        if not len(item):
            return
        self._rebase(int(ts.max()))
        for scaled, half_life in zip(self._scaled, self._half_lives, strict=True):
            np.add.at(scaled, item, np.exp2((ts - self._reference_ms) / half_life))
        self._mark(item)

    def promote(self, item: AnyArray, ts: Int64, shares: Float32) -> None:
        """Let item rows [n] be promoted so far from a time on, [n, C], in the order given."""
        self._promotions.promote(item, ts, shares)
        self._mark(item)

    def features(self, at_ms: int | None = None) -> Float32:
        """Return promotions and log1p of the decayed counts at a time, float32 [N, P].

        Without a time that of the latest event is taken.

        Asked again for the same time it recomputes only the items counted since, so a caller who
        rounds its times pays little. The result is shared between calls: do not write to it.
        """
        at = self.latest_ms if at_ms is None else at_ms
        if self._cached is None or self._cached[0] != at:
            out = self._values(at, slice(0, self.num_items))
        elif self._uncached:
            rows = self._uncached.take()
            out = np.zeros((self.num_items, self._cached[1].shape[1]), np.float32)
            out[: len(self._cached[1])] = self._cached[1]
            out[rows] = self._values(at, rows)
        else:
            return self._cached[1]
        self._cached = (at, out)
        self._uncached.clear()
        return out

    def _values(self, at_ms: int, rows: AnyArray | slice) -> Float32:
        factors = np.exp2((self._reference_ms - at_ms) / self._half_lives)
        columns = [s[rows] * f for s, f in zip(self._scaled, factors, strict=True)]
        counts = np.log1p(np.stack(columns, axis=1).astype(np.float32))
        return np.concatenate([self._promotions.told(at_ms, rows), counts], axis=1)

    def _mark(self, rows: AnyArray) -> None:
        self._uncached.add(rows)
        self._changed.add(rows)

    def _rebase(self, latest_ms: int) -> None:
        if self.latest_ms == 0:
            self._reference_ms = latest_ms
        self.latest_ms = max(self.latest_ms, latest_ms)
        shift = self.latest_ms - self._reference_ms
        if shift > _MAX_EXPONENT * self._half_lives.min():
            for scaled, half_life in zip(self._scaled, self._half_lives, strict=True):
                scaled *= np.exp2(-shift / half_life)
            self._reference_ms = self.latest_ms
            self._rewrite = True  # all counts differ now

    def _segment(self, whole: bool) -> pa.Table:
        """Scaled counts and promotions by item, a column each; the times are in the metadata."""
        changed = self._changed.take()
        rows = np.arange(self.num_items) if whole else changed
        columns = {"item": rows, **{f"count_{h}": s[rows] for h, s in enumerate(self._scaled)}}
        times = {"latest_ms": str(self.latest_ms), "reference_ms": str(self._reference_ms)}
        return table_of(columns | self._promotions.columns(rows)).replace_schema_metadata(times)

    def _load(self, table: pa.Table) -> None:
        times = table.schema.metadata
        self.latest_ms, self._reference_ms = int(times[b"latest_ms"]), int(times[b"reference_ms"])
        rows = numbers(table, "item")
        self.grow(int(rows.max(initial=-1)) + 1)
        for h, scaled in enumerate(self._scaled):
            scaled[rows] = numbers(table, f"count_{h}")
        self._promotions.load(rows, table)
        self._changed.clear()
