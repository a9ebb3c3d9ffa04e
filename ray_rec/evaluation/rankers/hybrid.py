"""The system's own model in the offline harness: the same features and learner as live, no Ray.

What is learned goes through `FeatureState`: window by window in the order of time, as on the log,
or all at once, to be gone through several times. Questions are answered with popularity as of their
time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from torch import Tensor

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.rankers.live import LiveCounts
from ray_rec.evaluation.rankers.records import item_records, promotion_records, records
from ray_rec.events.schema import EVENTS, EVENTS_SCHEMA, ITEMS
from ray_rec.features.arrays import (
    AnyArray,
    arrow,
    first_of_groups,
    numbers,
    ragged_ranges,
)
from ray_rec.features.examples import PROMOTED_SCHEMA, WindowExamples, assign_steps
from ray_rec.features.histories import History
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import ITEMS as ITEM_TABLES
from ray_rec.model.servable import MODEL, WHITENING, Servable
from ray_rec.model.text import Vectors
from ray_rec.training.epochs import study
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.texts import TEXT_KEYS

_KNOWN, _COUNTS = (MODEL, ITEM_TABLES, WHITENING, TEXT_KEYS), f"{ITEM_TABLES}count"
"""Of a learner's state what another may start from; whoever learns events counts them anew."""

Lesson = tuple[WindowExamples, pa.Table, int]
"""What a window gave, its rows by step, the number of steps."""


class Hybrid:
    """Items by the recall scores of the model, trained on everything observed.

    Args:
        config: of the run; nobody is held out, as the split does that.
        items: the catalogue, N rows of WINDOW_ITEMS_SCHEMA.
        raw: vector of each item's text, [N, raw_dim].
        passes: how often all is learned; once is as a stream.
        ordered: whether a user's things of one time were done in the order that they are in.
        encoder: the text encoder, where it is to learn too; texts are encoded anew after each pass.
        start: what is known at the start, as `Hybrid.learned` of one that learned the same.
        promoted: how far each item was promoted and since when, PROMOTED_SCHEMA.

    Attributes:
        after_pass: told the number of passes that are done, from 1; it may ask for scores.
        unit: what is learned at a time, a pass or a window.
        losses: the mean loss over the targets of each, in order.
    """

    name = "hybrid"
    after_pass: Callable[[int], None] | None = None

    def __init__(
        self,
        config: RunConfig,
        items: pa.Table,
        raw: Vectors,
        passes: int = 1,
        ordered: bool = False,
        encoder: TextEncoder | None = None,
        start: Mapping[str, Tensor] | None = None,
        promoted: pa.Table | None = None,
    ) -> None:
        features = replace(config.features, held_out_share=0.0, user_ttl_days=0)
        self._config, self._features = config, features
        self._items, self._raw, self._passes, self._ordered = items, raw, passes, ordered
        self._studies = passes > 1 or start is not None
        self.unit, self.losses = "pass" if self._studies else "window", list[float]()
        self._state = FeatureState(replace(features, covisits=0))  # they only answer
        self._learner = Learner(config.model, config.learner, encoder=encoder)
        self._learner.observe(items, raw)
        if start is not None:
            self._learner.load(self._learner.state() | dict(start))
        self._live = LiveCounts(features, promoted)
        self._promoted = PROMOTED_SCHEMA.empty_table()
        if promoted is not None:
            self._promoted = promoted.take(np.argsort(numbers(promoted, "ts"), kind="stable"))
        self._servable: Servable | None = None
        self._state.apply(
            Window(0, {ITEMS: {0: (0, items.num_rows)}}), {ITEMS: item_records(items)}
        )

    def scores(self, queries: Queries, frozen: bool = False) -> AnyArray:
        """Return recall scores; queries in the order of time cost the least.

        Where `frozen`, popularity goes no further than what was learned.
        """
        if self._servable is None:
            self._servable = self._learner.servable()
        self._live.follow(queries)
        out = np.empty((len(queries), queries.num_items), np.float32)
        for moment in np.unique(queries.ts).tolist():
            asked = np.flatnonzero(queries.ts == moment)
            histories = [self._newest(queries.histories[query]) for query in asked.tolist()]
            until = min(moment, self._live.timeline.learned_ms + 1) if frozen else moment
            popularity, company = self._live.before(until)
            covisits = company.supports(histories, popularity)
            out[asked] = self._servable.recall_batch(
                histories, queries.ts[asked], popularity, covisits
            )
        return out

    def _newest(self, history: History) -> History:
        """Return as much of a history as the model is trained with."""
        newest = slice(-self._features.history_length, None)
        return History(history.item[newest], history.type[newest], history.ts[newest])

    def observe(self, done: Interactions) -> None:
        """Learn from it in the order of time; the same is learned once."""
        if not self._live.timeline.observe(done):
            return
        if self._ordered:
            done = _apart(done)
        done = done.take(np.argsort(done.ts, kind="stable"))
        if self._studies:
            self._study(done)
        else:
            for made, rows, num_steps in self._lessons(done):
                self._tell(self._learner.learn(made, rows, num_steps))
            self._passed(1)

    def _tell(self, losses: Metrics) -> None:
        self.losses.append(losses.summary().get("recall_loss", float("nan")))

    def learned(self) -> dict[str, Tensor]:
        """Return weights, own vectors and texts, from which another may go on."""
        state = self._learner.state()
        return {k: v for k, v in state.items() if k.startswith(_KNOWN) and k != _COUNTS}

    def _passed(self, number: int) -> None:
        self._learner.renew_texts()
        self._servable = None
        if self.after_pass is not None:
            self.after_pass(number)

    def _study(self, done: Interactions) -> None:
        """Learn all several times."""

        def tell(number: int, losses: Metrics) -> None:
            self._tell(losses)
            self._passed(number)

        study(
            self._learner,
            self._applied(done, self._promoted_until(done)),
            self._features.half_lives_days,
            self._config.learner.rows_per_step,
            self._passes,
            tell,
        )

    def _lessons(self, done: Interactions) -> Iterator[Lesson]:
        """Yield the windows that have anything to learn."""
        promoted = self._promoted_until(done)
        # as the log is cut, in record time
        every = np.concatenate([numbers(promoted, "ts"), done.ts])
        is_done = np.argsort(every, kind="stable") >= promoted.num_rows
        bounds = [*range(0, len(every), self._config.training.window_records), len(every)]
        events = np.append(0, np.cumsum(is_done))[bounds]
        for (low, high), (begin, end) in zip(pairwise(bounds), pairwise(events), strict=True):
            listed = promoted.slice(low - begin, (high - end) - (low - begin))
            made = self._applied(done.take(np.arange(begin, end)), listed)
            rows = assign_steps(made.examples, self._config.learner.rows_per_step)
            if num_steps := int(numbers(rows, "step").max(initial=-1)) + 1:
                yield made, rows, num_steps

    def _promoted_until(self, done: Interactions) -> pa.Table:
        """Return what was promoted by the time of the last of these."""
        known = np.searchsorted(numbers(self._promoted, "ts"), done.ts[-1], "right")
        return self._promoted.slice(0, int(known))

    def _applied(self, done: Interactions, promoted: pa.Table) -> WindowExamples:
        """Return what a window of these gives to learning."""
        begin, first = (self._state.offsets.get(topic, {}).get(0, 0) for topic in (EVENTS, ITEMS))
        events = {0: (begin, begin + len(done.ts))}
        listed = {0: (first, first + promoted.num_rows)}
        window = Window(self._state.number, {EVENTS: events, ITEMS: listed})
        tables = {
            EVENTS: self._event_records(done, begin),
            ITEMS: promotion_records(self._items, promoted, self._features.promotions, first),
        }
        return self._state.apply(window, tables)

    def _event_records(self, done: Interactions, begin: int) -> pa.Table:
        place, ids = np.arange(begin, begin + len(done.ts)), self._items["item_id"]
        names = np.array(self._features.event_types, object)
        columns = {
            "partition": np.zeros(len(place), np.int32),
            "offset": place,
            "event_id": arrow(place).cast("string"),
            "user_id": arrow(done.user).cast("string"),
            "item_id": ids.take(arrow(done.item)),
            "event_type": names[done.type],
            "ts": done.ts,
        }
        return records(columns, len(place), EVENTS_SCHEMA)


def _apart(done: Interactions) -> Interactions:
    """Return things [n], ordered by (user, ts), with those of one user and time 1 ms apart."""
    start = first_of_groups(done.user, done.ts)
    size = np.diff(np.append(start, len(done.ts)))
    return replace(done, ts=done.ts + ragged_ranges(np.zeros(len(start), np.int64), size))


class Frozen:
    """The hybrid with counts that stop where learning ended: one training, asked in two ways."""

    name = "hybrid-frozen"

    def __init__(self, model: Hybrid) -> None:
        self._model = model

    def scores(self, queries: Queries) -> AnyArray:
        """Return recall scores."""
        return self._model.scores(queries, frozen=True)

    def observe(self, done: Interactions) -> None:
        """Let the model learn."""
        self._model.observe(done)
