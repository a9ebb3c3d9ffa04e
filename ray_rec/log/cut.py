"""Cut a stretch of the log into windows, the same ones each time it is asked.

Topics advance together in record time, so that exposures and the events that answer them lie in
the same or neighbouring windows; many records of one millisecond are split evenly by offset.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil

from ray_rec.errors import ConfigError
from ray_rec.events.schema import MAX_TS
from ray_rec.log.base import EventLog, Offsets, Ranges
from ray_rec.log.window import Window

_Place = dict[tuple[str, int], int]
"""(topic, partition) to offset."""

SLACK = 1.25
"""A window may be larger than asked by this much, which saves most of the search."""


def cut(
    log: EventLog,
    topics: Sequence[str],
    records_per_window: int | Callable[[int], int],
    start: Mapping[str, Offsets] | None = None,
    end: Mapping[str, Offsets] | None = None,
    first_number: int = 0,
) -> Iterator[Window]:
    """Yield windows of about `records_per_window` records from `start` to `end`.

    Without offsets for a partition: from its beginning, to its present end. A function is told
    how many records are left, and asked for the size of each window anew.
    """
    if isinstance(records_per_window, int) and records_per_window < 1:
        raise ConfigError(f"records_per_window is {records_per_window}; expected at least 1")
    extent = log.extent(topics)
    at = _place(extent, 0) | _only(topics, start or {})
    cutter = _Cutter(log, topics, at, _place(extent, 1) | _only(topics, end or {}))
    number = first_number
    while at != cutter.stop:
        size = records_per_window
        if not isinstance(size, int):
            size = size(_count(at, cutter.stop))
        for place in cutter.steps(at, size):
            if place == at:  # fewer records than partitions: rounding left nothing here
                continue
            yield Window(number, _ranges(topics, at, place))
            number, at = number + 1, place


class _Cutter:
    """Walks in record time; asks the log which offsets a time stands for."""

    def __init__(self, log: EventLog, topics: Sequence[str], start: _Place, stop: _Place) -> None:
        self._log, self._topics = log, topics
        self.stop = {key: max(offset, start[key]) for key, offset in stop.items()}
        self._now_ms, self._span_ms, self._end_ms = 0, 1, MAX_TS
        _, self._end_ms = self._search(0, MAX_TS, start, _count(start, self.stop), slack=1.0)

    def steps(self, at: _Place, num_records: int) -> list[_Place]:
        """Return the next places to stop at: one, or several within one millisecond."""
        num_records = min(num_records, _count(at, self.stop))
        low = self._now_ms
        high = low + self._span_ms
        while high < self._end_ms and _count(at, self._place_at(high, at)) < num_records:
            low, high = high, high + 2 * (high - self._now_ms)
        low, high = self._search(low, min(high, self._end_ms), at, num_records, SLACK)
        self._now_ms, self._span_ms = high, max(1, high - self._now_ms)
        then = self._place_at(high, at)
        if _count(at, then) <= num_records * SLACK:
            return [then]
        before = self._place_at(low, at)
        return ([before] if before != at else []) + _split(before, then, num_records)

    def _search(
        self, low: int, high: int, at: _Place, num_records: int, slack: float
    ) -> tuple[int, int]:
        """Narrow down to fewer than `num_records` before low and at least as many before high."""
        while high - low > 1:
            middle = (low + high) // 2
            found = _count(at, self._place_at(middle, at))
            if found < num_records:
                low = middle
                continue
            high = middle
            if num_records < found <= num_records * slack:
                break
        return low, high

    def _place_at(self, ts_ms: int, floor: _Place) -> _Place:
        if ts_ms >= self._end_ms:
            return self.stop
        place = _only(self._topics, self._log.positions_at(self._topics, ts_ms))
        return {
            key: min(max(place.get(key, 0), floor[key]), stop) for key, stop in self.stop.items()
        }


def _place(extent: Ranges, which: int) -> _Place:
    """Return the first (0) or the next (1) offset of each partition."""
    return {(topic, p): span[which] for topic, by in extent.items() for p, span in by.items()}


def _only(topics: Sequence[str], offsets: Mapping[str, Offsets]) -> _Place:
    return {(topic, p): at for topic in topics for p, at in offsets.get(topic, {}).items()}


def _count(at: _Place, then: _Place) -> int:
    return sum(then.values()) - sum(at.values())


def _split(at: _Place, then: _Place, num_records: int) -> list[_Place]:
    pieces = ceil(_count(at, then) / num_records)
    return [
        {key: offset + (then[key] - offset) * piece // pieces for key, offset in at.items()}
        for piece in range(1, pieces + 1)
    ]


def _ranges(topics: Sequence[str], at: _Place, then: _Place) -> Ranges:
    ranges: Ranges = {topic: {} for topic in topics}
    for (topic, partition), offset in at.items():
        ranges[topic][partition] = (offset, then[topic, partition])
    return ranges
