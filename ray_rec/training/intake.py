"""What waits on the log, cut to pieces for windows: how much, from where, and not before its time.

What is in the way for a while (no broker answers, a topic of those keyed by user was enlarged and
the others not yet) holds windows back; `held` says why.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ray_rec.errors import LogError, OffsetGap
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.log.base import EventLog, Offsets, Ranges, check_partitions, check_positions
from ray_rec.log.cut import cut
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig
from ray_rec.training.gaps import Lost, pass_over
from ray_rec.training.pace import Pace

LEARNED_TOPICS = (ITEMS, EVENTS, EXPOSURES, CONTROLS)


class Piece(NamedTuple):
    """Ranges of every partition for one window, and what was lost before them."""

    ranges: Ranges
    lost: Lost


class Intake:
    """Takes pieces from the log, each from the ends of the one before.

    Args:
        log: where the records are.
        config: how large pieces are, how long they wait, and what a gap means.
        end: offsets after which nothing is taken; None follows the log without end.
        clock: wall clock in seconds.
    """

    def __init__(
        self,
        log: EventLog,
        config: TrainingConfig,
        end: dict[str, Offsets] | None,
        clock: Callable[[], float],
    ) -> None:
        self._log, self._config, self._end, self._clock = log, config, end, clock
        self.pace = Pace(config, catches_up=end is None)
        self._backlog: Iterator[Window] | None = None
        self._found_at: float | None = None
        self.waiting = 0
        """Records beyond the last piece, as far as the log was looked at."""
        self.held = ""
        self._held_at, self._held_s = 0.0, 0.0

    def take(self, before: Window | None, only_full: bool) -> Piece | None:
        """Return what comes after window `before`; None to wait for more.

        Args:
            before: the last window that was decided.
            only_full: whether less than a whole window is left for later.

        Raises:
            OffsetGap: retention deleted what was not learned, and `training.on_gap` is "fail".
        """
        try:
            piece = self._next(before, only_full)
        except OffsetGap:
            raise
        except LogError as error:
            self._hold(str(error))
            return None
        self._hold("")
        if piece is not None:
            self._found_at = None
            self.waiting -= Window(0, piece.ranges).num_records
        return piece

    def give_back(self) -> None:
        """Undo the last `take`: its window was not decided."""
        self._backlog = None

    @property
    def held_s(self) -> float:
        """Seconds for which windows were held back so far."""
        return self._held_s + (self._clock() - self._held_at if self.held else 0.0)

    def reached(self, window: Window) -> bool:
        """Whether there is nothing to take after `window`, ever."""
        ends = window.ends()
        return self._end is not None and all(
            ends[topic].get(p, 0) >= end
            for topic, parts in self._end.items()
            for p, end in parts.items()
        )

    def _next(self, before: Window | None, only_full: bool) -> Piece | None:
        if self._backlog is not None:
            if (window := next(self._backlog, None)) is not None:
                return Piece(window.ranges, {})
            self._backlog = None
        news, lost = self._news(before)
        self.waiting = Window(0, news).num_records
        level = self.pace.level()
        if not self.waiting and not lost:
            return None
        if self.waiting < level and (only_full or self._may_wait()):
            return None
        if self.waiting <= level:
            self.pace.settle()
            return Piece(news, lost)
        starts = {t: {p: start for p, (start, _) in spans.items()} for t, spans in news.items()}
        ends = Window(0, news).ends()
        self._backlog = cut(self._log, LEARNED_TOPICS, self.pace.next, starts, ends)
        return Piece(next(self._backlog).ranges, lost)

    def _news(self, before: Window | None) -> tuple[Ranges, Lost]:
        """Return what was not planned yet, as far as it is left, and how much is not.

        A partition that was added since is taken from its beginning.
        """
        known = before.ends() if before is not None else {}
        extent = self._log.extent(LEARNED_TOPICS)
        if self._end is None:
            check_partitions(self._log.url, {topic: len(extent[topic]) for topic in extent})
        news: Ranges = {}
        for topic, spans in extent.items():
            planned = known.get(topic, {})
            check_positions(topic, planned, {p: last for p, (_, last) in spans.items()})
            news[topic] = {p: (planned.get(p, first), last) for p, (first, last) in spans.items()}
            if self._end is not None:
                bound = self._end.get(topic, {})
                news[topic] = {
                    p: (start, max(start, bound.get(p, start)))
                    for p, (start, _) in news[topic].items()
                }
        left = {t: {p: first for p, (first, _) in spans.items()} for t, spans in extent.items()}
        return Piece(*pass_over(news, left, self._config.on_gap))

    def _may_wait(self) -> bool:
        """Whether less than a window waits longer for more; a bounded run gets no more."""
        now = self._clock()
        if self._found_at is None:
            self._found_at = now
        waited_ms = 1000 * (now - self._found_at)
        return self._end is None and waited_ms < self._config.window_interval_ms

    def _hold(self, reason: str) -> None:
        if reason and not self.held:
            self._held_at = self._clock()
        elif self.held and not reason:
            self._held_s += self._clock() - self._held_at
        self.held = reason
