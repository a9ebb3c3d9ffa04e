"""Turns "what is new on the log" into windows: durable before told, and told alike for ever."""

import time
from collections.abc import Callable
from dataclasses import replace

from ray_rec.errors import ConfigError, RayRecError
from ray_rec.events.schema import EVENTS, EXPOSURES
from ray_rec.log.base import EventLog, Offsets, Ranges
from ray_rec.log.window import Passes, Window
from ray_rec.training.cadence import Cadence, Publish
from ray_rec.training.config import TrainingConfig
from ray_rec.training.gaps import mended, num_lost
from ray_rec.training.intake import LEARNED_TOPICS, Intake
from ray_rec.training.passes import onwards, repeated
from ray_rec.training.plans import PlanStore
from ray_rec.training.rehearsal import rehearsed

__all__ = ["LEARNED_TOPICS", "Planner"]


class Planner:
    """Decides windows one after the other, each from the ends of the one before.

    A plan names every partition, those without news with an empty range, so that one plan is
    enough to know where the next one starts.

    Args:
        log: where the records are.
        plans: where decided windows are kept.
        config: how large windows are, how long they wait, what they replay, when they publish.
        end: offsets after which there is no further window; None follows the log without end.
        given: plans of another run to be repeated, instead of what is new.
        rehearsable: whether the examples of a window are kept, so that it can be replayed.
        clock: wall clock in seconds.
    """

    def __init__(
        self,
        log: EventLog,
        plans: PlanStore,
        config: TrainingConfig,
        end: dict[str, Offsets] | None = None,
        given: PlanStore | None = None,
        rehearsable: Callable[[int], bool] = lambda number: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._plans, self._config = log, plans, config
        self._is_bounded = end is not None or given is not None
        self._gathers = end is not None and config.passes > 1
        self._given, self._rehearsable = given, rehearsable
        self._clock = clock
        self._intake = Intake(log, config, end, clock)
        self._cadence = Cadence(config, clock)
        self._current: Window | None = None
        self._moved: dict[tuple[str, int], float] = {}
        self._lost = 0

    @property
    def current(self) -> Window | None:
        """The window told last."""
        return self._current

    @property
    def held(self) -> str:
        """Why no window can be decided at the moment; empty when nothing is in the way."""
        return self._intake.held

    def decide(self, number: int) -> Window | None:
        """Return window `number` as decided before, else made of what is new, if any.

        Raises:
            OffsetGap: retention deleted what was not learned, and `training.on_gap` is "fail".
            ConfigError: the plans of this run are not those that it was given.
        """
        return self._decided(number) or self._keep(self._make(number))

    def ahead(self, number: int, decide: bool = True) -> Window | None:
        """Return window `number` if it was decided, or if so much waits that it is full.

        So a backlog can be read ahead, and what is just coming in is not cut too early.
        """
        window = self._decided(number)
        if window is None and decide:
            window = self._keep(self._make(number, only_full=True))
        return window

    def close(self, number: int) -> Window | None:
        """Return window `number` as decided before, else an empty one if a full version is owed.

        Asked when nothing more is to be learned, so that a run ends with a full version; a
        repeated run ends as the one that it repeats.
        """
        window = self._decided(number)
        if window is None and self._given is None:
            before = self._before(number)
            if before is not None and before.publish != "full":
                return self._keep(self._empty(before, "full"))
        return window

    def amend(self, window: Window) -> None:
        """Let a plan be told as `window` from now on."""
        self._plans.amend(window)
        if self._current is not None and self._current.number == window.number:
            self._current = window

    def mend(self, number: int) -> Window | None:
        """Return plan `number` amended by what retention deleted since it was decided.

        Raises:
            OffsetGap: something was, and `training.on_gap` is "fail".
        """
        window = self._plans.get(number)
        if window is None:
            return None
        first = {topic: self._log.earliest(topic) for topic in window.ranges}
        amended = mended(window, first, self._config.on_gap)
        self._lost += num_lost(amended) - num_lost(window)
        self.amend(amended)
        return amended

    def observe(self, number: int, num_bytes: dict[str, int]) -> None:
        """Learn what the records of a window take in memory, by topic."""
        window = self._plans.get(number)
        if window is not None:
            self._intake.pace.observe(window, num_bytes)

    def exhausted(self) -> bool:
        """Whether there will never be another window; asked when there is none."""
        return self._is_bounded and not self.held

    def measures(self) -> dict[str, float]:
        """Return records that wait beyond the last window, records lost and seconds held so far."""
        intake = self._intake
        return {"waiting": intake.waiting, "lost": self._lost, "held_s": intake.held_s}

    def _decided(self, number: int) -> Window | None:
        window = self._plans.get(number)
        if window is None:
            return None
        if self._given is not None and self._plans.first(number) != self._given.get(number):
            raise ConfigError(
                f"{self._plans.url} has another plan {number} than {self._given.url}; "
                "repeat those plans with a state_dir and registry of their own"
            )
        self._tell(window)
        return window

    def _keep(self, window: Window | None) -> Window | None:
        if window is not None:
            try:
                self._plans.put(window)
            except RayRecError:
                self._intake.give_back()  # what comes next follows the last window that was kept
                raise
            self._lost += num_lost(window)
            self._tell(window)
        return window

    def _tell(self, window: Window) -> None:
        self._current = window
        self._cadence.told(window)

    def _make(self, number: int, only_full: bool = False) -> Window | None:
        if self._given is not None:
            return self._given.get(number)
        before = self._before(number)
        if before is not None and (passes := self._due(before)) is not None:
            return self._repeating(before, passes)
        piece = self._intake.take(before, only_full)
        if piece is None:
            owed = before is not None and not only_full and self._cadence.owed()
            return self._empty(before, self._cadence.next()) if before and owed else None
        ranges, lost = piece
        window = Window(number, ranges, self._idle(ranges), lost=lost)
        if self._gathers:
            unfinished = before is not None and before.gathers
            times, patience = self._config.passes, self._config.patience
            begun = Passes(times, number, patience=patience)
            return replace(window, passes=before.passes if before and unfinished else begun)
        window = replace(window, replay=self._replay(number))
        publish = "full" if self._intake.reached(window) else self._cadence.next()
        return replace(window, publish=publish)

    def _due(self, before: Window) -> Passes | None:
        """Return the passes after window `before` whose turn it is, if there are any.

        They wait until all is gathered; a run that gathers nothing learns what another gathered.
        """
        passes = before.passes
        if passes is None or passes.is_over:
            return None
        waits = passes.at == 0 and self._gathers and not self._intake.reached(before)
        return None if waits else passes

    def _repeating(self, before: Window, passes: Passes) -> Window:
        """Return the next window of several passes: nothing of the log, gathered ones again."""
        size = self._config.largest_window()
        passes = onwards(passes, before.number + 1, size, self._records_of)
        # where the best pass stays, only the end tells which it is
        between = "none" if passes.patience else self._cadence.next()
        window = self._empty(before, "full" if passes.is_over else between)
        # no partition is idle: what is still open waits for the log to go on
        return replace(window, idle=(), replay=repeated(passes), passes=passes)

    def _records_of(self, number: int) -> int:
        window = self._plans.get(number)
        return 0 if window is None else window.num_records

    def _replay(self, number: int) -> tuple[int, ...]:
        def usable(older: int) -> bool:
            window = self._plans.get(older)
            if window is None or window.set_aside or window.num_records == 0:
                return False
            return self._rehearsable(older)

        return rehearsed(number, self._config.replay_windows, self._config.replay_horizon, usable)

    def _empty(self, before: Window, publish: Publish) -> Window:
        """Return a window without records: it makes a version of those before it."""
        ranges = {
            topic: {p: (at, at) for p, at in parts.items()}
            for topic, parts in before.ends().items()
        }
        idle, passes = self._idle(ranges), before.passes
        return Window(before.number + 1, ranges, idle=idle, publish=publish, passes=passes)

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
