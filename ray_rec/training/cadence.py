"""After which windows a version is made: decided with the window, so that a repetition agrees."""

from collections.abc import Callable
from typing import Literal

from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig

Publish = Literal["none", "delta", "full"]


class Cadence:
    """At most one version an interval, each `full_every`-th of them and the first one full.

    Where versions are made at the end of a run alone there is none before.

    Args:
        config: the interval and how often a version is full.
        clock: wall clock in seconds.
    """

    def __init__(self, config: TrainingConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        self._last: Window | None = None
        self._published_at = -float("inf")
        self._since_full: int | None = None

    def next(self) -> Publish:
        """Return what follows a window that is decided now."""
        since_s = self._clock() - self._published_at
        if self._config.publish == "end" or since_s < self._config.publish_interval_s:
            return "none"
        first = self._since_full is None
        return "full" if first or self._since_full == self._config.full_every - 1 else "delta"

    def owed(self) -> bool:
        """Whether a version is due that holds windows which no version holds yet."""
        unpublished = self._last is not None and self._last.publish == "none"
        return unpublished and self.next() != "none"

    def told(self, window: Window) -> None:
        """Count a window's version, once however often the window is told."""
        if self._last is not None and window.number <= self._last.number:
            return
        self._last = window
        if window.publish != "none":
            self._published_at = self._clock()
            self._since_full = 0 if window.publish == "full" else (self._since_full or 0) + 1
