"""What click models expect of items that could have been shown: the reward models of policies."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ray_rec.evaluation.clicks.features import Table, click_table
from ray_rec.evaluation.clicks.models import ClickModel
from ray_rec.evaluation.clicks.offline import fit
from ray_rec.evaluation.clicks.shown import Shown, Slots
from ray_rec.evaluation.reports.summary import PRIOR
from ray_rec.features.arrays import Bool, Float64, Int64

_CHUNK_ROWS = 1 << 18  # features of so many pairs of slot and item are held at a time


class Expected(NamedTuple):
    """What a model expects at n slots: of the chosen item, of all A on average, of the best."""

    chosen: Float64  # [n]
    mean: Float64  # [n]
    highest: Float64  # [n]
    best: Int64  # [n] -> A, the first where several are


class Rewards:
    """Models of the probability of an outcome, each learned when it is first asked.

    Args:
        shown: what was shown.
        outcome: which of the O outcomes.
        learned: rows [S] that models may learn, both labels among them.
        select: names of the features that they learn from, the item prior apart; none: all.
        seed: of models that draw.
    """

    def __init__(
        self, shown: Shown, outcome: int, learned: Bool, select: Sequence[str] = (), seed: int = 0
    ) -> None:
        self._shown, self._outcome, self._learned = shown, outcome, learned
        self._select, self._seed = select, seed
        self._models: dict[str, ClickModel] = {}

    def expected(self, name: str, slots: Slots, items: Int64, chosen: Int64) -> Expected:
        """Return what a model expects of each item at each slot, by what was known at its time.

        Args:
            name: out of `CLICK_MODELS`.
            slots: [n]; which items stand there is of no account.
            items: [A] catalogue rows that could stand there.
            chosen: [n] which of them did.

        Raises:
            ConfigError: there is no such feature.
        """
        model, n, num_items = self._fitted(name), len(chosen), len(items)
        made = []
        for part in np.array_split(np.arange(n), min(n, -(-n * num_items // _CHUNK_ROWS))):
            pairs = Slots(*(np.repeat(column[part], num_items) for column in slots))
            pairs = pairs._replace(item=np.tile(items, len(part)))
            table = click_table(self._shown, self._outcome, self._learned, pairs)
            q = model.predict(self._seen_by(name, table).values).reshape(len(part), num_items)
            own = q[np.arange(len(part)), chosen[part]]
            made.append(Expected(own, q.mean(axis=1), q.max(axis=1), q.argmax(axis=1)))
        return Expected(*(np.concatenate(columns) for columns in zip(*made, strict=True)))

    def _fitted(self, name: str) -> ClickModel:
        if name not in self._models:
            labels = self._shown.labels[:, self._outcome]
            table = self._seen_by(name, self._table)
            self._models[name] = fit(name, table, labels, self._learned, self._seed)
        return self._models[name]

    def _seen_by(self, name: str, table: Table) -> Table:
        return table if name == PRIOR else table.only(self._select)

    @cached_property
    def _table(self) -> Table:
        return click_table(self._shown, self._outcome, self._learned)
