"""What the system's own click head says of what is shown, having learned the log until a moment.

As in the stream: windows in order, both tasks, every exposure with what was known when it arrived.
From the moment on weights stay as they are; histories, popularity and rates go on, as in serving.
Importance is by the names of the head's numbers: one's are shuffled among the exposures of a chunk,
so among what closed at about the same time.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.stretch import ends, starts
from ray_rec.evaluation.backtest import TOPICS, read_window
from ray_rec.evaluation.clicks.importance import Said
from ray_rec.evaluation.clicks.shown import Shown, shown_keys
from ray_rec.features.arrays import Float32, UInt64, arrow, lists, numbers
from ray_rec.features.examples import EXPOSURES_CODE, WindowExamples, assign_steps, collate
from ray_rec.features.state import FeatureState
from ray_rec.log.base import EventLog
from ray_rec.log.cut import cut
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import Servable
from ray_rec.model.text import TextStore
from ray_rec.training.epochs import study
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import shown_of

CLICK_HEAD = "click-head"
HEADS_AVERAGE = "click-head-average"
"""The mean of what the click heads of several seeds say, as `model/ensemble.py` serves it."""
_CHUNK_ROWS = 256


def streamed(
    log: EventLog,
    config: RunConfig,
    shown: Shown,
    begin_ms: int,
    passes: int = 1,
    start: str | None = None,
    end: str | None = None,
    explain: bool = False,
    seeds: Sequence[int] = (),
) -> list[Said]:
    """Return by seed the probability of each outcome of what is shown, NaN before `begin_ms`.

    Windows that reach `begin_ms` are not learned. Nobody is held out. Features know no chance, so
    they are made once for all seeds.

    Args:
        log: where from, from `start` to `end` (see `stretch`).
        config: of the run.
        shown: what is asked about, read from the same stretch.
        begin_ms: until when is learned.
        passes: how often; once is as a stream.
        explain: say it without each of the head's numbers as well (`ModelConfig.click_numbers`),
            shuffled by the seed of the learner.
        seeds: of the learners; none: that of the configuration alone.

    Raises:
        DataError: there is nothing to learn before that.
    """
    features = replace(config.features, held_out_share=0.0)
    state, names = FeatureState(features), config.model.click_numbers if explain else ()
    learners = [replace(config.learner, seed=seed) for seed in seeds] or [config.learner]
    heads = [_Head(replace(config, learner=learner), passes, names) for learner in learners]
    known = list[UInt64]()
    ranges = starts(log, TOPICS, start), ends(log, TOPICS, end)
    for window in cut(log, TOPICS, config.training.window_records, *ranges):
        made = state.apply(window, read_window(log, window, dict.fromkeys((*TOPICS, "dead"), 0)))
        if max(lists(made.examples, "query_ts")[0], default=0) < begin_ms:
            for head in heads:
                head.learn(made)
            continue
        closed = made.examples.filter(arrow(numbers(made.examples, "topic_code") == EXPOSURES_CODE))
        known.append(shown_keys(closed))
        for head in heads:
            head.say(closed)
    # what closes only beyond the stretch
    rest = state.apply(
        replace(window, number=window.number + 1, ranges={}, advance_to_ms=2**53), {}
    ).examples
    known.append(shown_keys(rest))
    for head in heads:
        head.say(rest)
    keys = np.concatenate(known)
    found = [_placed(shown, begin_ms, keys, np.concatenate(head.said)) for head in heads]
    return [Said(f[:, 0], {name: f[:, 1 + at] for at, name in enumerate(names)}) for f in found]


def averaged(said: Sequence[Said]) -> Said:
    """Return the mean of what several say of the same."""
    return Said(np.mean([each.whole for each in said], axis=0, dtype=np.float32), {})


class _Head:
    """A learner of windows, once each as they come or all of them several times; then it answers.

    Attributes:
        said: the probabilities of each table of exposures that it was asked about, [n, 1+F, O].
    """

    def __init__(self, config: RunConfig, passes: int, names: Sequence[str]) -> None:
        self.said, self._names = list[Float32](), names
        self._generator = np.random.default_rng(config.learner.seed)
        encoder = TextEncoder(config.encoder)
        store = TextStore(f"{config.state_dir}/texts", encoder.digest)
        self._vectors = partial(store.vectors, encode=encoder.encode)
        self._config, self._passes = config, passes
        self._learner = Learner(config.model, config.learner)
        self._gathered: list[WindowExamples] = []
        self._servable: Servable | None = None

    def learn(self, made: WindowExamples) -> None:
        if made.items.num_rows:
            texts = [str(text) for text in made.items["text"].to_pylist()]
            self._learner.observe(made.items, self._vectors(texts))
        if self._passes > 1:
            self._gather(made)
            return
        rows = assign_steps(made.examples, self._config.learner.rows_per_step)
        if num_steps := int(numbers(rows, "step").max(initial=-1)) + 1:
            self._learner.learn(made, rows, num_steps)

    def _gather(self, made: WindowExamples) -> None:
        """Keep a window; popularity of the first and the last, responses of the last alone."""
        if len(self._gathered) > 1:
            last, nothing = self._gathered[-1], np.zeros((0, 0))
            popularity, responses = nothing.astype(np.float32), nothing.astype(np.int64)
            self._gathered[-1] = replace(last, popularity=popularity, responses=responses)
        self._gathered.append(made)

    def say(self, closed: pa.Table) -> None:
        """Answer for the items of closed exposures; what was learned is final from then on."""
        outcomes = self._config.features.num_outcomes
        self.said.append(_said(self._final(), closed, outcomes, self._names, self._generator))

    def _final(self) -> Servable:
        if self._servable is None:
            self._study()
            if not self._learner.steps:
                raise DataError("no clicks to learn before the moment of the split; move it")
            self._servable = self._learner.servable()
        return self._servable

    def _study(self) -> None:
        if not self._gathered:
            return
        first, last = self._gathered[0], self._gathered[-1]
        before = np.zeros_like(last.popularity)
        before[: len(first.popularity)] = first.popularity
        made = replace(
            last,
            number=0,
            examples=pa.concat_tables([each.examples for each in self._gathered]),
            taken=pa.concat_tables([each.taken for each in self._gathered]),
            promoted=pa.concat_tables([each.promoted for each in self._gathered]),
            popularity=before,
            at_ms=first.at_ms,
        )
        config, half_lives = self._config.learner, self._config.features.half_lives_days
        study(self._learner, made, half_lives, config.rows_per_step, self._passes)
        self._gathered = []


def _said(
    servable: Servable,
    closed: pa.Table,
    num_outcomes: int,
    names: Sequence[str],
    generator: np.random.Generator,
) -> Float32:
    """Return the probabilities of shown items by what was known when they were shown, [n, 1+F, O].

    The first are as they are, the others with the numbers of each of the F names shuffled.
    """
    parts = [np.zeros((0, 1 + len(names), num_outcomes), np.float32)]
    for at in range(0, closed.num_rows, _CHUNK_ROWS):
        asked = shown_of(collate(closed.slice(at, _CHUNK_ROWS), num_outcomes))
        said = [servable.click_batch(*asked)]
        if names:
            order = generator.permutation(len(said[0]))
            without = servable.click_shuffled(*asked, order)
            said += [without[name] for name in names]
        parts.append(np.stack(said, axis=1))
    return np.concatenate(parts)


def _placed(shown: Shown, begin_ms: int, known: UInt64, said: Float32) -> Float32:
    out = np.full((len(shown), *said.shape[1:]), np.nan, np.float32)
    asked = np.flatnonzero(shown.ts >= begin_ms)
    order = np.argsort(known)
    out[asked] = said[order[np.searchsorted(known[order], shown.key[asked])]]
    return out
