"""Ensembles of rankers: combined by hand, and weighted by what members tell of a later stretch."""

import numpy as np
import pytest

from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.splits import TimeOptions, global_time
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.rankers.ensemble import Ensemble
from ray_rec.features.arrays import AnyArray
from ray_rec.model.combining import Combine
from tests.evaluation.tables import Taken, table

ITEMS = ["milk", "bread", "tea"]


class Told:
    """Says scores that it was given, and remembers what it was let learn."""

    name = "told"

    def __init__(self, scores: list[float], learned: list[int]) -> None:
        self._scores, self._learned = scores, learned

    def scores(self, queries: Queries) -> AnyArray:
        return np.tile(np.float64(self._scores), (len(queries), 1))

    def observe(self, done: Interactions) -> None:
        self._learned.append(len(done.ts))


def _asked(taken: list[Taken], combine: Combine) -> tuple[list[float], list[int]]:
    """Return the scores of a question, and how many events members were let learn each time."""
    learned: list[int] = []

    def make(number: int) -> Ranker:
        return Told([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]][number], learned)

    split = global_time(Events.of(table(taken), ITEMS), TimeOptions(0.99))
    ensemble = Ensemble("both", make, combine, num_members=2)
    ensemble.observe(split.training())
    assert ensemble.name == "both"
    return ensemble.scores(split.queries())[0].tolist(), learned


# ann takes milk, and after nine tenths of the time bread nine times in ten; then she is asked
LATE = ["milk", *["bread"] * 9]
ALL = [*(("ann", "milk", n) for n in range(88)), *(("ann", i, 88 + n) for n, i in enumerate(LATE))]
ALL.append(("ann", "tea", 200))


def test_members_are_averaged_or_vote() -> None:
    assert _asked(ALL, "score-average")[0] == pytest.approx([1.0, 2.0, 0.5])
    assert _asked(ALL, "rank-vote")[0] == pytest.approx([0.5, 0.75, 0.25])


def test_stacking_weighs_members_by_what_came_in_the_last_tenth() -> None:
    (milk, bread, tea), learned = _asked(ALL, "stacking")
    # scores are (2a, a + 3b, b), and bread is to milk as 9 to 1; tea, which never comes, is far off
    assert milk / 2 + 3 * tea == pytest.approx(bread)
    assert bread - milk == pytest.approx(np.log(9), abs=0.02)
    assert bread - tea > 4
    assert learned == [98, 98, 88, 88]  # all for the members, nine tenths for those on trial


def test_where_nothing_can_be_asked_members_weigh_alike() -> None:
    taken = [("bob", "milk", 1), ("ann", "milk", 2), ("ann", "tea", 9)]  # nobody goes on after 1
    scores, learned = _asked(taken, "stacking")
    assert scores == pytest.approx([1.0, 2.0, 0.5])
    assert learned == [2, 2]
