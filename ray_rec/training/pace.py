"""How much of what waits on the log the next window takes."""

from collections.abc import Mapping

from ray_rec.log.cut import SLACK
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig

_ASSUMED_BYTES = 1024.0
"""Size of a record of a topic of which none was read yet."""
_MEMORY = 0.9
"""Weight of what was seen before, against a window that was just read."""


class Pace:
    """Windows of the configured size; while a stream is behind, each twice as large as the last.

    So it is level again soon, and one burst that fills a little more than a window does not make
    the next one four times as large. No window is larger than memory is set aside for it, by the
    average bytes of the topics' records so far.

    Args:
        config: sizes in records and bytes.
        catches_up: whether windows grow; a bounded run is in no hurry.
    """

    def __init__(self, config: TrainingConfig, catches_up: bool) -> None:
        self._config, self._catches_up = config, catches_up
        self._growth = 1
        self._records: dict[str, float] = {}
        self._bytes: dict[str, float] = {}

    def observe(self, window: Window, num_bytes: Mapping[str, int]) -> None:
        """Learn what the records of a window that was read take, by topic."""
        for topic, size in num_bytes.items():
            spans = window.ranges.get(topic, {}).values()
            if count := sum(end - start for start, end in spans):
                self._records[topic] = _MEMORY * self._records.get(topic, 0.0) + count
                self._bytes[topic] = _MEMORY * self._bytes.get(topic, 0.0) + size

    def level(self) -> int:
        """Return how many records a window takes while no more than that waits."""
        return min(self._config.window_records, self._in_memory())

    def settle(self) -> None:
        """Take windows of the usual size again: nothing waits beyond the next one."""
        self._growth = 1

    def next(self, num_waiting: int) -> int:
        """Return how many of the records that wait the next window takes."""
        level = self.level()
        if not self._catches_up or num_waiting <= level:
            return level
        size = min(level * self._growth, self._config.largest_window(), self._in_memory())
        self._growth *= 2 if level * self._growth < self._config.largest_window() else 1
        return size

    def _in_memory(self) -> int:
        """Return how many records of the largest kind fit in a window's bytes."""
        sizes = [self._bytes[topic] / count for topic, count in self._records.items()]
        largest = max([*sizes, 1.0], default=_ASSUMED_BYTES) if sizes else _ASSUMED_BYTES
        return max(1, int(self._config.window_bytes / (SLACK * largest)))
