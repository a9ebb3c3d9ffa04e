"""Lets a tracker hear less often than it is told, because a stream has no end."""

import time
from collections.abc import Callable, Mapping

from ray_rec.tracking.tracker import Tracker


class Paced:
    """Passes at most one window in `every_s` seconds on, and the last always.

    What the tracker failed to take is passed on again with the next, as late as any other.

    Args:
        tracker: the one that hears; it is never told the same window twice in a row.
        every_s: seconds between two windows.
        clock: seconds that never go back.
    """

    def __init__(
        self, tracker: Tracker, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tracker, self._every_s, self._clock = tracker, every_s, clock
        self._passed: int | None = None
        self._passed_at = -float("inf")
        self._waiting: tuple[int, dict[str, float]] | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the window on, or keep it until the next may be passed on."""
        if step == self._passed:
            return
        self._waiting = step, dict(metrics)
        if self._clock() - self._passed_at >= self._every_s:
            self._pass()

    def close(self) -> None:
        """Pass the last window on, and close the tracker."""
        try:
            self._pass()
        finally:
            self._tracker.close()

    def _pass(self) -> None:
        if self._waiting is None:
            return
        step, metrics = self._waiting
        self._passed_at = self._clock()
        self._tracker.log(step, metrics)
        self._waiting, self._passed = None, step
