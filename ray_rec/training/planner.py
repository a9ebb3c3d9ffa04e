"""Turns "what is new on the log" into windows: durable before told, and told alike for ever."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.log.base import EventLog, Offsets, Ranges
from ray_rec.log.cut import cut
from ray_rec.log.window import Window
from ray_rec.training.cadence import Cadence, Publish
from ray_rec.training.config import TrainingConfig
from ray_rec.training.plans import PlanStore

LEARNED_TOPICS = (ITEMS, EVENTS, EXPOSURES, CONTROLS)


class Planner:
    """Decides windows one after the other, each from the ends of the one before.

    A plan names every partition, those without news with an empty range, so that one plan is
    enough to know where the next one starts.

    Args:
        log: where the records are.
        plans: where decided windows are kept.
        config: window size and when a partition counts as idle.
        end: offsets after which there is no further window; None follows the log without end.
        clock: wall clock in seconds.
    """

    def __init__(
        self,
        log: EventLog,
        plans: PlanStore,
        config: TrainingConfig,
        end: dict[str, Offsets] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._plans, self._config = log, plans, config
        self._end, self._clock = end, clock
        self._current: Window | None = None
        self._backlog: Iterator[Window] | None = None
        self._moved: dict[tuple[str, int], float] = {}
        self._cadence = Cadence(config, clock)

    @property
    def current(self) -> Window | None:
        """The window told last."""
        return self._current

    def decide(self, number: int) -> Window | None:
        """Return window `number` as decided before, else made of what is new, if any."""
        return self._decided(number) or self._keep(self._make(number))

    def ahead(self, number: int, decide: bool = True) -> Window | None:
        """Return window `number` if it was decided, or if so much waits that it is full.

        So a backlog can be read ahead, and what is just coming in is not cut too early.
        """
        window = self._decided(number)
        if window is None and decide and self._is_behind(number):
            window = self._keep(self._make(number))
        return window

    def close(self, number: int) -> Window | None:
        """Return window `number` as decided before, else an empty one if a full version is owed.

        Asked when nothing more is to be learned, so that a run ends with a full version.
        """
        window = self._decided(number)
        if window is None and (before := self._before(number)) and before.publish != "full":
            return self._keep(self._empty(before, "full"))
        return window

    def amend(self, window: Window) -> None:
        """Let a plan be told as `window` from now on."""
        self._plans.amend(window)
        if self._current is not None and self._current.number == window.number:
            self._current = window

    def exhausted(self) -> bool:
        """Whether the plan is a bounded one; asked when there is nothing new."""
        return self._end is not None

    def _decided(self, number: int) -> Window | None:
        window = self._plans.get(number)
        if window is not None:
            self._tell(window)
        return window

    def _keep(self, window: Window | None) -> Window | None:
        if window is not None:
            self._plans.put(window)
            self._tell(window)
        return window

    def _tell(self, window: Window) -> None:
        self._current = window
        self._cadence.told(window)

    def _make(self, number: int) -> Window | None:
        starts = self._starts(number)
        ends = self._end or {topic: self._log.latest(topic) for topic in LEARNED_TOPICS}
        ranges = self._next_ranges(number, starts, ends)
        if ranges is None:
            before = self._before(number)
            owed = before is not None and self._cadence.owed()
            return self._empty(before, self._cadence.next()) if before and owed else None
        whole = {
            topic: {p: ranges.get(topic, {}).get(p, (start, start)) for p, start in parts.items()}
            for topic, parts in starts.items()
        }
        window = Window(number=number, ranges=whole, idle=self._idle(whole))
        publish = "full" if self._reaches_end(window) else self._cadence.next()
        return replace(window, publish=publish)

    def _is_behind(self, number: int) -> bool:
        if self._backlog is not None:
            return True
        ends = self._end or {topic: self._log.latest(topic) for topic in LEARNED_TOPICS}
        starts = self._starts(number)
        waiting = sum(
            end - starts[topic].get(partition, 0)
            for topic, parts in ends.items()
            for partition, end in parts.items()
        )
        return waiting >= self._config.window_records

    def _empty(self, before: Window, publish: Publish) -> Window:
        """Return a window without records: it makes a version of those before it."""
        ranges = {
            topic: {p: (at, at) for p, at in parts.items()}
            for topic, parts in before.ends().items()
        }
        return Window(before.number + 1, ranges, idle=self._idle(ranges), publish=publish)

    def _reaches_end(self, window: Window) -> bool:
        ends = window.ends()
        return self._end is not None and all(
            ends[topic].get(p, 0) >= end
            for topic, parts in self._end.items()
            for p, end in parts.items()
        )

    def _next_ranges(
        self, number: int, starts: dict[str, Offsets], ends: dict[str, Offsets]
    ) -> Ranges | None:
        """Everything new if it fits in one window, else the next piece of the backlog."""
        if self._backlog is not None and (piece := next(self._backlog, None)) is not None:
            return piece.ranges
        self._backlog = None
        news = {
            topic: {p: (starts[topic].get(p, 0), end) for p, end in parts.items()}
            for topic, parts in ends.items()
        }
        num_new = Window(number, news).num_records
        if num_new <= self._config.window_records:
            return news if num_new > 0 else None
        self._backlog = cut(
            self._log, LEARNED_TOPICS, self._config.window_records, starts, ends, number
        )
        return next(self._backlog).ranges

    def _starts(self, number: int) -> dict[str, Offsets]:
        """Where window `number` begins: where the one before ended, or at a partition's first."""
        before = self._before(number)
        ends = before.ends() if before is not None else {}
        return {topic: self._log.earliest(topic) | ends.get(topic, {}) for topic in LEARNED_TOPICS}

    def _before(self, number: int) -> Window | None:
        if self._current is not None and self._current.number == number - 1:
            return self._current
        return self._plans.get(number - 1)

    def _idle(self, ranges: Ranges) -> tuple[tuple[str, int], ...]:
        """Partitions without a record for `idle_after_s`: the watermark does not wait for them."""
        now, idle = self._clock(), []
        for topic in (EVENTS, EXPOSURES):
            for partition, (start, end) in ranges.get(topic, {}).items():
                key = (topic, partition)
                since = self._moved.setdefault(key, now)
                if start < end:
                    self._moved[key] = now
                elif now - since >= self._config.idle_after_s:
                    idle.append(key)
        return tuple(idle)
