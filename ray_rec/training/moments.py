"""Popularity as it was at several times, for learning a long stretch in one go.

A window of a stream is short, and all its queries are asked with popularity as of its start. Where
a whole past is learned at once, several times over, each query has that of its own time instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ray_rec.features.arrays import AnyArray, Float32, Int64
from ray_rec.features.popularity import Popularity


@dataclass(frozen=True)
class Moments:
    """M times in ascending order, and log counts of N items over H half-lives at each."""

    at_ms: Int64  # [M]
    popularity: Float32  # [M, N, H]

    @classmethod
    def once(cls, popularity: Float32) -> Self:
        """Return a single moment, that of all queries; `popularity` is [N, H]."""
        return cls(np.zeros(1, np.int64), popularity[None])

    @classmethod
    def through(
        cls, item: Int64, ts: Int64, num_items: int, half_lives_days: Sequence[float], most: int
    ) -> Self:
        """Return at most so many moments, with about as many events between each two.

        Args:
            item: int64 [n] catalogue rows of the events that count, in the order of time.
            ts: int64 [n] ms.
            num_items: N.
            half_lives_days: of the counts.
            most: M at most.
        """
        places = np.linspace(0, len(ts) - 1, min(most, max(1, len(ts)))).astype(np.int64)
        at_ms = np.unique(ts[places]) if len(ts) else np.zeros(1, np.int64)
        counts = Popularity(half_lives_days)
        counts.grow(num_items)
        out = np.zeros((len(at_ms), num_items, len(half_lives_days)), np.float32)
        begin = 0
        for moment, end in enumerate(np.searchsorted(ts, at_ms).tolist()):
            counts.add(item[begin:end], ts[begin:end])
            out[moment] = counts.features(int(at_ms[moment]))
            begin = end
        return cls(at_ms, out)

    def of(self, at_ms: AnyArray) -> Int64:
        """Return for each time [Q] the latest moment that is not after it, or the first."""
        found: Int64 = np.searchsorted(self.at_ms, at_ms, "right") - 1
        return np.maximum(found, 0)
