"""The loop of a backtest: test on a window with what was known before it, then learn it.

Each query is ranked over the full catalogue by the model as it stood before the window and by every
baseline; clicks are predicted when shown and judged when their labels are complete.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.ledger import Ledger
from ray_rec.evaluation.asking.questions import Queries, Users, questions
from ray_rec.evaluation.clicks.measures import arrivals
from ray_rec.evaluation.metrics.ranking import target_ranks
from ray_rec.evaluation.pupil import TWINS, Pupil, twin
from ray_rec.evaluation.rankers.baselines import Popularity, Ranker, default_rankers
from ray_rec.events.schema import EVENTS, EXPOSURES
from ray_rec.features.arrays import AnyArray, Float64, Int64, numbers
from ray_rec.features.covisits import Covisits
from ray_rec.features.examples import EVENTS_CODE, EXPOSURES_CODE, WindowExamples, assign_steps
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore

MODEL = "hybrid"
_CHUNK_QUERIES = 32  # scores of so many queries over all items are held at once


@dataclass(frozen=True)
class Options:
    """What a backtest may be told beside the run's configuration.

    `start` and `end` are places on the log (see `stretch`); `warmup_windows` windows with
    behaviour are learned before the first is tested; `max_queries` bounds the queries, and
    likewise the exposures, that are tested in a window (0: all), chosen by a stable hash; with
    `twins`, single-task twins of the model learn and are asked beside it.
    """

    start: str | None = None
    end: str | None = None
    warmup_windows: int = 1
    max_queries: int = 200
    cutoff: int = 10
    twins: bool = False

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the option."""
        for name in ("warmup_windows", "max_queries"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.cutoff < 1:
            raise ConfigError(f"cutoff is {self.cutoff}; it must be at least 1")


@dataclass
class Clock:
    """Seconds by stage."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        began = time.perf_counter()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began


@dataclass(frozen=True)
class _Lesson:
    """What a window brings: questions, exposures to predict and to judge, rows to learn."""

    made: WindowExamples
    rows: pa.Table
    queries: Queries
    covisits: Covisits  # as of its start
    seen: Int64  # [T] how often each target had been taken before
    arrived: pa.Table
    closed: pa.Table


class Prequential:
    """State, model and baselines after the windows so far; `step` takes the next one.

    `beside` are others that are asked and taught the same, by name: the model's twins, and whoever
    is put there before a window.
    """

    def __init__(
        self, config: RunConfig, options: Options, rankers: Sequence[Ranker] | None = None
    ) -> None:
        self.windows, self.clock = list[dict[str, Any]](), Clock()
        self._config, self._options = config, options
        self._state = FeatureState(config.features)
        self.encoder = TextEncoder(config.encoder)
        self.store = TextStore(f"{config.state_dir}/texts", self.encoder.digest)
        self.model = Pupil(config, self.encoder, self.store, options.max_queries)
        self.beside = {
            name: Pupil(
                twin(config, name),
                TextEncoder(config.encoder) if config.encoder.learns else self.encoder,
                self.store,
                options.max_queries,
            )
            for name in (TWINS if options.twins else ())
        }
        self._rankers = default_rankers() if rankers is None else rankers
        self._seen = Popularity()
        self._users = Users()
        self._learned = 0

    @property
    def ledger(self) -> Ledger:
        """What was judged of the model and the baselines."""
        return self.model.ledger

    @property
    def is_warm(self) -> bool:
        """Whether the next window is tested."""
        return self._learned >= self._options.warmup_windows

    def step(self, window: Window, tables: Mapping[str, pa.Table]) -> None:
        """Test on a window, then learn it."""
        self._users.note(EVENTS_CODE, tables[EVENTS])
        self._users.note(EXPOSURES_CODE, tables[EXPOSURES])
        with self.clock.stage("features"):
            covisits = self._state.covisits.copy()
            made = self._state.apply(window, tables)
            rows = assign_steps(made.examples, self._config.learner.rows_per_step)
        queries, done = questions(
            rows, self._users, len(self._state.catalogue), self._options.max_queries
        )
        lesson = self._lesson(window, made, rows, queries, covisits)
        losses = self._take(self.model, lesson, self.clock, self._baselines(lesson.queries))
        with self.clock.stage("twins"):
            for pupil in self.beside.values():
                self._take(pupil, lesson, Clock(), {})
        with self.clock.stage("baselines"):
            for ranker in (*self._rankers, self._seen):
                ranker.observe(done)
        self._users.forget(EVENTS_CODE)
        self._learned += bool(len(done.user))
        self.windows.append(_described(window, made, tables[EVENTS]) | {"losses": losses})

    def _lesson(
        self,
        window: Window,
        made: WindowExamples,
        rows: pa.Table,
        queries: Queries,
        covisits: Covisits,
    ) -> _Lesson:
        """Return what a window brings; nothing is asked while the model warms up."""
        closed = rows.filter(pa.array(numbers(rows, "topic_code") == EXPOSURES_CODE))
        arrived = arrivals(self._state.join.open, closed, window.ranges[EXPOSURES])
        if not self.is_warm:
            queries, arrived = queries.part(0, 0), arrived.slice(0, 0)
        seen = np.zeros(0, np.int64)
        if len(queries):
            seen = self._seen.scores(queries)[0][queries.target_item].astype(np.int64)
        return _Lesson(made, rows, queries, covisits, seen, arrived, closed)

    def _baselines(self, queries: Queries) -> dict[str, Float64]:
        """Return the rank of each target [T] by baseline."""
        with self.clock.stage("baselines"):
            return {ranker.name: _ranked(queries, ranker.scores) for ranker in self._rankers}

    def _take(
        self, pupil: Pupil, lesson: _Lesson, clock: Clock, others: dict[str, Float64]
    ) -> dict[str, float]:
        """Put the questions of a lesson to one pupil, then let it learn; return its losses."""
        number = lesson.made.number
        with clock.stage("embed"):
            pupil.observe(lesson.made.items)
        if len(lesson.queries) or lesson.arrived.num_rows:
            ranks = _test(pupil, lesson, clock)
            if len(lesson.queries):
                pupil.ledger.add_ranks(number, lesson.queries, lesson.seen, {MODEL: ranks} | others)
        pupil.ledger.add_clicks(number, pupil.clicks.judge(lesson.closed, self._users))
        with clock.stage("learn"):
            return pupil.learn(lesson.made, lesson.rows)


def _test(pupil: Pupil, lesson: _Lesson, clock: Clock) -> Float64:
    """Let a pupil predict what was shown; return how it ranks each target [T]."""
    servable, popularity = pupil.servable(), pupil.popularity(lesson.made)
    with clock.stage("click"):
        pupil.clicks.predict(lesson.arrived, servable, popularity)

    def scores(part: Queries) -> AnyArray:
        company = lesson.covisits.supports(part.histories, popularity)
        return servable.recall_batch(part.histories, part.ts, popularity, company)

    with clock.stage("rank"):
        return _ranked(lesson.queries, scores)


def _described(window: Window, made: WindowExamples, events: pa.Table) -> dict[str, Any]:
    until_ms = int(numbers(events, "ts").max(initial=0)) or None
    return {
        "window": window.number,
        "records": window.num_records,
        "until_ms": until_ms,
        "counts": made.counts,
    }


def _ranked(queries: Queries, scores: Callable[[Queries], AnyArray]) -> Float64:
    ranks = [np.zeros(0)]
    for start in range(0, len(queries), _CHUNK_QUERIES):
        part = queries.part(start, min(start + _CHUNK_QUERIES, len(queries)))
        ranks.append(target_ranks(scores(part), part.target_query, part.target_item))
    return np.concatenate(ranks)
