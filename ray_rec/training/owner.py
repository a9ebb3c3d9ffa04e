"""The one owner of the streaming state: applies each window once, keeps its result for a retry."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import StateError, StateLost
from ray_rec.events.decode import dead_letters
from ray_rec.events.schema import DEAD_LETTER
from ray_rec.features.examples import EXAMPLES_SCHEMA, TAKEN_SCHEMA, WindowExamples
from ray_rec.features.grouped import GroupedState
from ray_rec.features.state import FeatureState
from ray_rec.features.users import Chain
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.window import Window
from ray_rec.registry import Registry
from ray_rec.training.lessons import Lesson, Lessons
from ray_rec.training.user_owners import start_user_owners


@dataclass(frozen=True)
class WindowSide:
    """What every worker needs of a window beside its share of the examples.

    `window` has neither examples nor what was taken, `lesson` no rows: `num_rows` counts them over
    all workers; `offsets` are the next to be read after it; `metrics` say what the owner saw and
    took.
    """

    window: WindowExamples
    lesson: Lesson
    num_rows: int
    offsets: dict[str, Offsets]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Kept:
    """Tables of the state: all of it, or what changed since the one before window `base`."""

    tables: dict[str, pa.Table]
    base: int | None


@dataclass(frozen=True)
class _Result:
    examples: pa.Table
    side: WindowSide


class StateOwner:
    """Holds the state of a stream; results are kept from the last committed checkpoint on.

    A fresh one knows nothing: `resume` makes it ready, from the registry's snapshots. With
    `training.state_owners` above 1 users are with owners of their own; what becomes of one of these
    becomes of all: this one then knows nothing either.

    Attributes:
        user_owners: the actors that hold the users; none when this one does.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._log = open_log(config.log)
        self._registry = Registry(config.registry, create=True)
        self._lessons = Lessons(config)
        self.user_owners = start_user_owners(config)
        self._state: FeatureState | GroupedState | None = None
        self._results: dict[int, _Result] = {}
        self._expected: Window | None = None
        self._given: int | None = None

    def resume(self, number: int) -> bool:
        """Be ready for window `number`: with what is held if that reaches it, or its snapshot.

        False when there is no such snapshot.
        """
        if self._state is not None and (number in self._results or number == self._state.number):
            return True
        segments: Chain | None = None
        if number > 0:
            snapshot = self._registry.snapshot(number)
            if snapshot is None:
                return False
            segments = snapshot.segments
        self._forget()
        self._state = self._restored(segments)
        return True

    def _restored(self, segments: Chain | None) -> FeatureState | GroupedState:
        features = self._config.features
        if self.user_owners:
            return GroupedState(features, self.user_owners, segments)
        return (
            FeatureState(features) if segments is None else FeatureState.restore(features, segments)
        )

    def _forget(self) -> None:
        self._state = self._given = None
        self._results.clear()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Know nothing any more when a part of the state is lost on the way."""
        try:
            yield
        except StateLost:
            self._forget()
            raise

    def expect(self, window: Window) -> None:
        """Take the plan of the window that the workers ask for next."""
        self._expected = window

    def expected(self) -> Window | None:
        """Return the plan that the read tasks of this moment are for."""
        return self._expected

    def held(self, number: int) -> pa.Table | None:
        """Return the examples of window `number` if it was applied already: it is read but once."""
        result = self._results.get(number)
        return None if result is None else result.examples

    def apply(
        self, window: Window, tables: Mapping[str, pa.Table], dead: list[pa.Table]
    ) -> pa.Table:
        """Return the examples of `window`, applying it if it is the next one (EXAMPLES_SCHEMA)."""
        if window.number in self._results:
            return self._results[window.number].examples
        if self._state is None:
            raise StateError(f"window {window.number} came before the state was restored")
        started = time.perf_counter()
        metrics = self._bury(dead)
        with self._whole():
            made = self._state.apply(window, tables)
        result = self._make(window, made, self._state)
        metrics["join_s"] = time.perf_counter() - started
        result.side.metrics.update(metrics)
        self._results[window.number] = result
        return result.examples

    def _bury(self, dead: list[pa.Table]) -> dict[str, float]:
        """Write dead letters; return how many by reason."""
        counts: Counter[str] = Counter()
        for rows in dead:
            if rows.num_rows:
                self._log.append(DEAD_LETTER, dead_letters(rows))
                counts.update(f"dead_{reason}" for reason in rows["reason"].to_pylist())
        return {reason: float(count) for reason, count in counts.items()}

    def _make(
        self, window: Window, made: WindowExamples, state: FeatureState | GroupedState
    ) -> _Result:
        lesson = self._lessons.make(window, made)
        none, passes = EXAMPLES_SCHEMA.empty_table(), window.passes
        told = {"pass": passes.number, "gathered": len(lesson.gathered)} if passes else {}
        side = WindowSide(
            window=replace(made, examples=none, taken=TAKEN_SCHEMA.empty_table()),
            lesson=replace(lesson, rows=none),
            num_rows=lesson.rows.num_rows,
            offsets={topic: dict(parts) for topic, parts in state.offsets.items()},
            metrics={
                **made.counts,
                **told,
                "examples": lesson.rows.num_rows,
                "replayed": lesson.replayed,
                "held_out": lesson.held_out.num_rows,
                "watermark_ms": state.watermark.value_ms,
            },
        )
        return _Result(lesson.rows, side)

    def side(self, number: int) -> WindowSide:
        """Return what workers need of window `number`, once applied, beside its examples."""
        if number not in self._results:
            raise StateError(f"window {number} is not held; it was never applied or is committed")
        return self._results[number].side

    def snapshot(self, number: int, base: int | None = None) -> Kept | None:
        """Return the state before window `number`, or None when the owner is already further.

        What changed since window `base`, where that is the state it gave last; else all of it.
        """
        if self._state is None or self._state.number != number:
            return None
        if base is None or base != self._given:
            base = None
        with self._whole():
            tables = self._state.snapshot() if base is None else self._state.changes()
        self._given = number
        return Kept(tables, base)

    def commit(self, number: int, oldest: int) -> None:
        """Forget the results of windows before `number`: a checkpoint now stands for them.

        Examples are kept as far as they are learned again from the `oldest` checkpoint on.
        """
        self._results = {k: result for k, result in self._results.items() if k >= number}
        self._lessons.forget(oldest)
