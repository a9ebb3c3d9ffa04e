"""A run's windows added up: totals since it began, means and rates over the last minute."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_rec.tracking.measures import by_label, measured

OVER_S = 60.0
_RATES = ("events", "examples")
_BESIDE = ("join",)
"""Stages that pass while others do: the owner joins while the workers read, or learn."""


@dataclass(frozen=True)
class _Window:
    """When it was begun and done, what it counted (nothing when repeated), what is averaged."""

    began: float
    done: float
    counts: dict[str, float]
    means: dict[str, float]


class Account:
    """Takes windows as they are learned.

    A window that is learned again after a failure counts no record twice. The newest window stays
    in the means, however old it is, and rates fall while none follows it.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._totals: dict[str, float] = defaultdict(float)
        self._values: dict[str, float] = {}
        self._recent: deque[_Window] = deque()
        self._newest = -1

    def add(self, window: Mapping[str, Any]) -> None:
        """Take the flat metrics of a window that was learned just now."""
        told, now, number = measured(window), self._clock(), int(window["window"])
        repeated = number <= self._newest
        counts = {} if repeated else told.counts
        self._newest = max(number, self._newest)
        for path, count in {**counts, "windows": 1, "windows_repeated": int(repeated)}.items():
            self._totals[path] += count
        self._values = told.values
        stages = by_label(told.means, "window_seconds")
        took_s = sum(took for stage, took in stages.items() if stage not in _BESIDE)
        self._recent.append(_Window(now - took_s, now, counts, told.means))

    def read(self) -> dict[str, float]:
        """Return all measurements by path; none before the first window."""
        now = self._clock()
        while len(self._recent) > 1 and now - self._recent[0].done > OVER_S:
            self._recent.popleft()
        return {**self._totals, **self._values, **self._means(), **self._rates(now)}

    def _means(self) -> dict[str, float]:
        told: dict[str, list[float]] = defaultdict(list)
        for window in self._recent:
            for path, value in window.means.items():
                told[path].append(value)
        return {path: sum(values) / len(values) for path, values in told.items()}

    def _rates(self, now: float) -> dict[str, float]:
        elapsed_s = now - self._recent[0].began if self._recent else 0.0
        if elapsed_s <= 0:
            return {}
        counts = [window.counts for window in self._recent]
        return {
            f"{name}_per_second": sum(count.get(name, 0.0) for count in counts) / elapsed_s
            for name in _RATES
            if any(name in count for count in counts)
        }
