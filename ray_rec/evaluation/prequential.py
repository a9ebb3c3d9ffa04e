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
from ray_rec.evaluation.clicks.measures import Clicks, arrivals
from ray_rec.evaluation.metrics.ranking import target_ranks
from ray_rec.evaluation.rankers.baselines import Popularity, Ranker, default_rankers
from ray_rec.events.schema import EVENTS, EXPOSURES
from ray_rec.features.arrays import AnyArray, Float64, numbers
from ray_rec.features.examples import EVENTS_CODE, EXPOSURES_CODE, WindowExamples, assign_steps
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import Servable
from ray_rec.model.text import TextStore
from ray_rec.training.learner import Learner

MODEL = "hybrid"
_CHUNK_QUERIES = 32  # scores of so many queries over all items are held at once


@dataclass(frozen=True)
class Options:
    """What a backtest may be told beside the run's configuration.

    `start` and `end` are places on the log (see `stretch`); `warmup_windows` windows with
    behaviour are learned before the first is tested; `max_queries` bounds the queries, and
    likewise the exposures, that are tested in a window (0: all), chosen by a stable hash.
    """

    start: str | None = None
    end: str | None = None
    warmup_windows: int = 1
    max_queries: int = 200
    cutoff: int = 10

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


class Prequential:
    """State, model and baselines after the windows so far; `step` takes the next one."""

    def __init__(
        self, config: RunConfig, options: Options, rankers: Sequence[Ranker] | None = None
    ) -> None:
        self.ledger, self.windows = Ledger(), list[dict[str, Any]]()
        self.clock = Clock()
        self._config, self._options = config, options
        self._state = FeatureState(config.features)
        self._encoder = TextEncoder(config.encoder)
        learning = self._encoder if config.encoder.learns else None
        self._learner = Learner(config.model, config.learner, encoder=learning)
        self._texts = TextStore(f"{config.state_dir}/texts", self._encoder.digest)
        self._rankers = default_rankers() if rankers is None else rankers
        self._seen = Popularity()
        self._clicks = Clicks(config.features.num_outcomes, options.max_queries)
        self._users = Users()
        self._learned = 0

    def step(self, window: Window, tables: Mapping[str, pa.Table]) -> None:
        """Test on a window, then learn it."""
        self._users.note(EVENTS_CODE, tables[EVENTS])
        self._users.note(EXPOSURES_CODE, tables[EXPOSURES])
        with self.clock.stage("features"):
            made = self._state.apply(window, tables)
            rows = assign_steps(made.examples, self._config.learner.rows_per_step)
        with self.clock.stage("embed"):
            self._observe(made.items)
        queries, done = questions(
            rows, self._users, len(self._state.catalogue), self._options.max_queries
        )
        closed = rows.filter(pa.array(numbers(rows, "topic_code") == EXPOSURES_CODE))
        if self._learned >= self._options.warmup_windows:
            self._test(window, made, queries, closed)
        self.ledger.add_clicks(window.number, self._clicks.judge(closed, self._users))
        with self.clock.stage("learn"):
            losses = self._learn(made, rows)
        with self.clock.stage("baselines"):
            for ranker in (*self._rankers, self._seen):
                ranker.observe(done)
        self._users.forget(EVENTS_CODE)
        self._learned += bool(len(done.user))
        self.windows.append(_described(window, made, tables[EVENTS]) | {"losses": losses})

    def _observe(self, items: pa.Table) -> None:
        if not items.num_rows:
            return
        texts, encode = [str(text) for text in items["text"].to_pylist()], self._encoder.encode
        learns = self._config.encoder.learns
        raw = encode(texts) if learns else self._texts.vectors(texts, encode)
        self._learner.observe(items, raw)

    def _test(
        self, window: Window, made: WindowExamples, queries: Queries, closed: pa.Table
    ) -> None:
        arrived = arrivals(self._state.join.open, closed, window.ranges[EXPOSURES])
        if not len(queries) and not arrived.num_rows:
            return
        servable = self._learner.servable()
        with self.clock.stage("click"):
            self._clicks.predict(arrived, servable, made.popularity)
        if len(queries):
            seen = self._seen.scores(queries)[0][queries.target_item].astype(np.int64)
            ranks = self._ranks(queries, servable, made)
            self.ledger.add_ranks(window.number, queries, seen, ranks)

    def _ranks(
        self, queries: Queries, servable: Servable, made: WindowExamples
    ) -> dict[str, Float64]:
        """Return the rank of each target [T] by ranker, the model first."""

        def model(part: Queries) -> AnyArray:
            return servable.recall_batch(part.histories, part.ts, made.popularity)

        ranks = {}
        with self.clock.stage("rank"):
            ranks[MODEL] = _ranked(queries, model)
        with self.clock.stage("baselines"):
            for ranker in self._rankers:
                ranks[ranker.name] = _ranked(queries, ranker.scores)
        return ranks

    def _learn(self, made: WindowExamples, rows: pa.Table) -> dict[str, float]:
        step = numbers(rows, "step")
        learned = rows.filter(pa.array(step >= 0))
        num_steps = int(step.max(initial=-1)) + 1
        if not num_steps:
            return {}
        losses = self._learner.learn(made, learned, num_steps).summary()
        self._learner.renew_texts()
        self._learner.calibrate(rows.filter(rows["held_out"]))
        return losses


def _described(window: Window, made: WindowExamples, events: pa.Table) -> dict[str, Any]:
    until_ms = int(numbers(events, "ts").max(initial=0)) or None
    return {
        "window": window.number,
        "records": window.num_records,
        "until_ms": until_ms,
        "counts": made.counts,
    }


def _ranked(queries: Queries, scores: Callable[[Queries], AnyArray]) -> Float64:
    ranks = []
    for start in range(0, len(queries), _CHUNK_QUERIES):
        part = queries.part(start, min(start + _CHUNK_QUERIES, len(queries)))
        ranks.append(target_ranks(scores(part), part.target_query, part.target_item))
    return np.concatenate(ranks)
