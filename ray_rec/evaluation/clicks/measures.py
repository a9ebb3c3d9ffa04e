"""Click predictions, made when an exposure arrives and judged when its labels are complete.

As in service: neither weights nor popularity nor item rates know anything of the time between.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.evaluation.asking.questions import Users
from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64, lists, mix, numbers
from ray_rec.features.examples import EXPOSURES_CODE
from ray_rec.features.histories import History
from ray_rec.features.join import OPEN_SCHEMA
from ray_rec.model.servable import Servable

PRIOR_STRENGTH = 10.0
_TOKENS = ("token_item", "token_type", "token_ts")
_NAMES = ("partition", "offset", "ts", *_TOKENS, "shown_item", "shown_placement")


class ItemPrior:
    """The baseline: how often an item was taken when shown, drawn to the overall rate.

    p = (taken + s · overall) / (shown + s), s = `PRIOR_STRENGTH`, from closed exposures.
    """

    def __init__(self, num_outcomes: int) -> None:
        self._shown: Float64 = np.zeros(0)
        self._taken: Float64 = np.zeros((0, num_outcomes))

    @property
    def is_empty(self) -> bool:
        """Whether no exposure has closed yet."""
        return not self._shown.any()

    def predict(self, item: Int64) -> Float64:
        """Return the probability of each outcome of shown items, [S, O]."""
        num_items = int(item.max(initial=-1)) + 1
        self._grow(num_items)
        total, strength = self._shown.sum(), PRIOR_STRENGTH
        overall = (self._taken.sum(axis=0) + 1) / (total + 2)
        rate: Float64 = (self._taken[item] + strength * overall) / (self._shown[item] + strength)[
            :, None
        ]
        return rate

    def observe(self, item: Int64, labels: Float32) -> None:
        """Count shown items and their outcomes [S, O]."""
        self._grow(int(item.max(initial=-1)) + 1)
        np.add.at(self._shown, item, 1)
        np.add.at(self._taken, item, labels)

    def _grow(self, num_items: int) -> None:
        more = num_items - len(self._shown)
        if more > 0:
            self._shown = np.pad(self._shown, (0, more))
            self._taken = np.pad(self._taken, ((0, more), (0, 0)))


class Judged(NamedTuple):
    """Shown items whose predictions have met their labels; [S] and [S, O]."""

    user: Int64
    labels: Float32
    model: Float32
    prior: Float64


class Clicks:
    """Predictions that wait for their labels.

    Args:
        num_outcomes: outcome types O.
        max_exposures: predict at most so many of a window's, by stable hash; 0: all.
    """

    def __init__(self, num_outcomes: int, max_exposures: int) -> None:
        self._outcomes, self._most = num_outcomes, max_exposures
        self._prior = ItemPrior(num_outcomes)
        self._waiting: dict[tuple[int, int], tuple[Float32, Float64]] = {}

    def predict(self, arrived: pa.Table, servable: Servable, popularity: Float32) -> None:
        """Predict exposures of `arrivals`; `popularity` [N, P] is as of now.

        Nothing is predicted before the first exposures have closed: nobody has seen a label yet.
        """
        if self._prior.is_empty:
            return
        chosen = arrived.select(_NAMES).take(_smallest_hashes(arrived, self._most))
        for row in chosen.to_pylist():
            history = History(
                np.array(row["token_item"], np.int32),
                np.array(row["token_type"], np.int8),
                np.array(row["token_ts"], np.int64),
            )
            shown = np.array(row["shown_item"], np.int64)
            placement = np.array(row["shown_placement"], np.int64)
            made = servable.click(history, row["ts"], popularity, shown, placement)
            self._waiting[row["partition"], row["offset"]] = (made, self._prior.predict(shown))

    def judge(self, closed: pa.Table, users: Users) -> Judged:
        """Return what was predicted of closed exposures (EXAMPLES_SCHEMA); learn their rates."""
        item, sizes = lists(closed, "shown_item")
        bits = lists(closed, "shown_labels")[0]
        labels = ((bits[:, None] >> np.arange(self._outcomes)) & 1).astype(np.float32)
        places = zip(*(numbers(closed, n).tolist() for n in ("partition", "offset")), strict=True)
        made = [self._waiting.pop(place, None) for place in places]
        known = np.array([pair is not None for pair in made], bool)
        shown_known = np.repeat(known, sizes)
        self._prior.observe(item.astype(np.int64), labels)
        model = [np.zeros((0, self._outcomes), np.float32), *(pair[0] for pair in made if pair)]
        prior = [np.zeros((0, self._outcomes)), *(pair[1] for pair in made if pair)]
        return Judged(
            np.repeat(users.of(closed), sizes)[shown_known],
            labels[shown_known],
            np.concatenate(model),
            np.concatenate(prior),
        )


def arrivals(waiting: pa.Table, closed: pa.Table, ranges: dict[int, tuple[int, int]]) -> pa.Table:
    """Return the exposures that arrived in a window, out of waiting ones and closed click rows."""
    names = [name for name in OPEN_SCHEMA.names if name in _NAMES]
    both = pa.concat_tables([waiting.select(names), closed_columns(closed).select(names)])
    partition, offset = numbers(both, "partition"), numbers(both, "offset")
    new = np.zeros(both.num_rows, bool)
    for number, (start, end) in ranges.items():
        new |= (partition == number) & (offset >= start) & (offset < end)
    return both.filter(pa.array(new))


def closed_columns(closed: pa.Table) -> pa.Table:
    """Return click examples with the time of their one query as `ts`."""
    return closed.append_column("ts", pc.list_element(closed["query_ts"], 0))


def _smallest_hashes(exposures: pa.Table, most: int) -> AnyArray:
    """Return rows to take, ascending; the choice depends on the record alone."""
    if not 0 < most < exposures.num_rows:
        return np.arange(exposures.num_rows)
    code = np.full(exposures.num_rows, EXPOSURES_CODE)
    key = mix(code, numbers(exposures, "partition"), numbers(exposures, "offset"))
    return np.sort(np.argsort(key, kind="stable")[:most])
