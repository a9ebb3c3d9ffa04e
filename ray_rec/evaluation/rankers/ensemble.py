"""Several of a model that differ in their seed, ranking as one: is an ensemble worth its cost?

The rules are those that serve (`ray_rec/model/combining.py`).
"""

from collections.abc import Callable, Sequence

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.questions import Interactions, Queries, joined
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.asking.splits import TimeOptions, global_time
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.features.arrays import AnyArray, Float32, mix
from ray_rec.model.combining import Combine, recall_weights, together

NUM_MEMBERS = 3
_VALIDATION = TimeOptions(quantile=0.9)
_MOST_QUESTIONS = 500
"""Whose scores over all items are held at once while weights are fitted."""


class Ensemble:
    """Members by their combined scores.

    For stacking, other members learn the first nine tenths of the time that was observed, and the
    weights are those under which they best tell the rest; where that asks nothing, they are even.

    Args:
        name: in a report.
        make: a new member by its number from 0, which is all that it may differ in.
        combine: how their scores become one.
        num_members: how many there are.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Ranker],
        combine: Combine,
        num_members: int = NUM_MEMBERS,
    ) -> None:
        self.name = name
        self._make, self._combine, self._num_members = make, combine, num_members
        self._members = self._new()
        self._parts: list[Interactions] = []
        self._weights: Float32 | None = None

    def _new(self) -> list[Ranker]:
        return [self._make(number) for number in range(self._num_members)]

    def scores(self, queries: Queries) -> AnyArray:
        """Return the members' scores as one."""
        if self._weights is None:
            self._weights = self._fitted(queries.num_items)
        return together(_scores(self._members, queries), self._combine, self._weights)

    def observe(self, done: Interactions) -> None:
        """Let all members learn."""
        self._parts.append(done)
        self._weights = None
        for member in self._members:
            member.observe(done)

    def _fitted(self, num_items: int) -> Float32:
        even = np.full(self._num_members, 1 / self._num_members, np.float32)
        split = self._validation(num_items) if self._combine == "stacking" else None
        if split is None:
            return even
        trial, queries = self._new(), split.queries()
        for member in trial:
            member.observe(split.training())
        scores = np.stack([np.float32(s) for s in _scores(trial, queries)])
        return recall_weights(scores, queries.target_query, queries.target_item)

    def _validation(self, num_items: int) -> Split | None:
        """Return the last tenth of what was observed as a question; None where it is none."""
        done = joined(self._parts)
        if not len(done.ts):
            return None
        names, rows = [str(row) for row in range(num_items)], np.arange(num_items)
        events = Events(done.user, done.item, done.ts, done.type, names, mix(rows))
        try:
            return global_time(events, _VALIDATION).sampled(_MOST_QUESTIONS)
        except DataError:
            return None


def _scores(members: Sequence[Ranker], queries: Queries) -> list[AnyArray]:
    return [member.scores(queries) for member in members]
