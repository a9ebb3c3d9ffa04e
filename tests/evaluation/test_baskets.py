"""Next baskets by hand: who is asked when, for what, and what is known by then."""

import numpy as np
import pytest

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.baskets import WEEK_MS, next_basket
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.offline import View, judge_views
from ray_rec.evaluation.rankers.baselines import Popularity
from tests.evaluation.tables import table

ITEMS = ["milk", "bread", "tea", "rice"]
BEGIN = 100
TAKEN = [
    ("ann", "milk", 1),
    ("bob", "milk", 2),
    ("bob", "bread", 3),
    *(("ann", item, BEGIN + 5) for item in ("tea", "milk")),
    ("ann", "milk", BEGIN + 6),  # the same basket: milk is one target
    ("cem", "tea", BEGIN),  # never seen before: not asked, but known a week later
    ("cem", "rice", BEGIN + WEEK_MS),
    ("ann", "tea", BEGIN + WEEK_MS + 1),
]


def test_weeks_are_asked_at_their_start_with_what_was_known_by_then() -> None:
    split = next_basket(Events.of(table(TAKEN), ITEMS), TimeOptions(at_ms=BEGIN))
    queries = split.queries()
    assert queries.user.tolist() == [0, 0, 2]
    assert queries.ts.tolist() == [BEGIN, BEGIN + WEEK_MS, BEGIN + WEEK_MS]
    assert queries.target_query.tolist() == [0, 0, 1, 2]
    assert [ITEMS[item] for item in queries.target_item] == ["milk", "tea", "tea", "rice"]
    assert [len(history.item) for history in queries.histories] == [1, 4, 1]
    assert split.repeated().tolist() == [True, False, True, False]
    assert split.times_learned().tolist() == [2, 0, 0, 0]
    assert int(split.train.sum()) == 3
    assert len(split.sampled(2).queries()) == 2


def test_both_views_come_of_the_same_scores() -> None:
    split = next_basket(Events.of(table(TAKEN), ITEMS), TimeOptions(at_ms=BEGIN))
    every = View(np.ones(4, np.bool_), repeats=True)
    new = View(~split.repeated(), repeats=False)
    both = judge_views(split, [Popularity()], [every, new], cutoff=2)
    # Learned: milk 2, bread 1, tea and rice 0 (one and a half places for two).
    assert both[0].ranks["popularity"].tolist() == [1, 3.5, 3.5, 3.5]
    assert both[0].lists["popularity"].tolist() == [[0, 1]] * 3
    # Without milk: bread, then tea and rice. Without cem's tea: milk, bread, rice.
    assert both[1].user.tolist() == [0, 2]
    assert both[1].target_query.tolist() == [0, 1]
    assert both[1].ranks["popularity"].tolist() == [2.5, 3]
    assert both[1].lists["popularity"][0].tolist() == [1, 2]


def test_nobody_to_ask() -> None:
    events = Events.of(table([("ann", "milk", 1), ("bob", "tea", 200)]))
    with pytest.raises(DataError, match="both until and after 99 ms"):
        next_basket(events, TimeOptions(at_ms=BEGIN))
