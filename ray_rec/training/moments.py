"""Popularity, promotions among it, as of several times, for learning a long stretch in one go.

A window of a stream is short, and all its queries are asked with popularity as of its start. Where
a whole past is learned at once, several times over, each query has that of its own time instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from ray_rec.features.arrays import AnyArray, Float32, Int64, numbers
from ray_rec.features.examples import WindowExamples
from ray_rec.features.popularity import Popularity
from ray_rec.features.promotions import by_time

MOMENTS = 256
"""Of a past at most so many stand for the popularity that its queries were asked with."""

MOST_NUMBERS = 1 << 26
"""Of all moments together: 256 MiB."""


@dataclass(frozen=True)
class Moments:
    """M times in ascending order, and the P numbers of N items' popularity at each."""

    at_ms: Int64  # [M]
    popularity: Float32  # [M, N, P]

    @classmethod
    def once(cls, popularity: Float32) -> Self:
        """Return a single moment, that of all queries; `popularity` is [N, P]."""
        return cls(np.zeros(1, np.int64), popularity[None])

    @classmethod
    def through(
        cls,
        windows: Sequence[WindowExamples],
        num_items: int,
        half_lives_days: Sequence[float],
        most: int = MOMENTS,
    ) -> Self:
        """Return at most so many moments of windows, with about as many events between each two.

        Args:
            windows: what popularity was at their start, and what changes it from then on.
            num_items: N, all that any of them knows.
            half_lives_days: of the counts.
            most: M at most; fewer where N is large.
        """
        width = max(window.popularity.shape[1] for window in windows)
        most = min(most, MOST_NUMBERS // max(1, num_items * width))
        each = max(1, most // len(windows))
        parts = [_within(window, num_items, half_lives_days, each) for window in windows]
        at_ms = np.concatenate([part.at_ms for part in parts])
        order = np.argsort(at_ms, kind="stable")
        return cls(at_ms[order], np.concatenate([part.popularity for part in parts])[order])

    def of(self, at_ms: AnyArray) -> Int64:
        """Return for each time [Q] the latest moment that is not after it, or the first."""
        found: Int64 = np.searchsorted(self.at_ms, at_ms, "right") - 1
        return np.maximum(found, 0)


def _within(
    window: WindowExamples, num_items: int, half_lives_days: Sequence[float], most: int
) -> Moments:
    """Return the moments of one window, each with what came strictly before it."""
    taken, ts = numbers(window.taken, "item"), numbers(window.taken, "ts")
    order = np.argsort(ts, kind="stable")
    taken, ts = taken[order], ts[order]
    promoted, since, shares = by_time(window.promoted)
    anew = _spread(since + 1, most // 2)
    at_ms = np.union1d(anew, _spread(ts, most - len(anew)))
    if not len(at_ms):
        at_ms = np.array([window.at_ms])
    counts = Popularity.of(window.popularity, window.at_ms, half_lives_days)
    counts.grow(num_items)
    out = np.zeros((len(at_ms), num_items, window.popularity.shape[1]), np.float32)
    bounds = (np.append(0, np.searchsorted(times, at_ms)) for times in (ts, since))
    steps = zip(*(pairwise(bound.tolist()) for bound in bounds), strict=True)
    for moment, ((begin, end), (first, last)) in enumerate(steps):
        counts.add(taken[begin:end], ts[begin:end])
        counts.promote(promoted[first:last], since[first:last], shares[first:last])
        out[moment] = counts.features(int(at_ms[moment]))
    return Moments(at_ms, out)


def _spread(ts: Int64, most: int) -> Int64:
    """Return at most so many of ascending times, with about as many between each two."""
    places = np.linspace(0, len(ts) - 1, min(most, len(ts))).astype(np.int64)
    distinct: Int64 = np.unique(ts[places])
    return distinct
