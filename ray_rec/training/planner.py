"""Turns "what is new on the log" into windows: durable before told, and told alike for ever."""

import time
from collections.abc import Callable, Iterator

from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.log.base import EventLog, Offsets, Ranges
from ray_rec.log.cut import cut
from ray_rec.log.window import Window
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

    @property
    def current(self) -> Window | None:
        """The window told last."""
        return self._current

    def decide(self, number: int) -> Window | None:
        """Return window `number` as decided before, else made of what is new, if any."""
        window = self.decided(number)
        if window is None:
            window = self._make(number)
            if window is not None:
                self._plans.put(window)
                self._current = window
        return window

    def decided(self, number: int) -> Window | None:
        """Return window `number` if it was decided before; it becomes the current one."""
        window = self._plans.get(number)
        self._current = window or self._current
        return window

    def exhausted(self) -> bool:
        """Whether the plan is a bounded one; asked when there is nothing new."""
        return self._end is not None

    def _make(self, number: int) -> Window | None:
        starts = self._starts(number)
        ends = self._end or {topic: self._log.latest(topic) for topic in LEARNED_TOPICS}
        ranges = self._next_ranges(number, starts, ends)
        if ranges is None:
            return None
        whole = {
            topic: {p: ranges.get(topic, {}).get(p, (start, start)) for p, start in parts.items()}
            for topic, parts in starts.items()
        }
        return Window(number=number, ranges=whole, idle=self._idle(whole))

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
        before = self._current
        if before is None or before.number != number - 1:
            before = self._plans.get(number - 1)
        ends = before.ends() if before is not None else {}
        return {topic: self._log.earliest(topic) | ends.get(topic, {}) for topic in LEARNED_TOPICS}

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
