"""What is handed to RecTools and set beside what it says; RecTools runs in `make results`."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rectools_check as check
from ray_rec.evaluation.asking.splits import leave_one_out
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.baselines import Popularity
from tests.evaluation.tables import Taken, table


def test_equal_scores_come_in_the_catalogues_order_and_both_sides_get_the_same(
    tmp_path: Path,
) -> None:
    """Learned: a three times, b, c and d once; ann is asked for c, bob and cem for b."""
    taken = {"ann": "abc", "bob": "acb", "cem": "adb"}
    rows: list[Taken] = [
        (user, item, n) for user, items in taken.items() for n, item in enumerate(items)
    ]
    split = leave_one_out(Events.of(table(rows), list("abcd")))
    ranked = judge(split, [check.Ordered(Popularity())])
    # of what she may still take ann sees c before d; bob sees b before d; cem b before c
    assert ranked.ranks["popularity"].tolist() == [1, 1, 1]

    check.export(split, ranked, tmp_path)
    with (tmp_path / "lists.csv").open() as file:
        lists = list(csv.DictReader(file))
    first = {row["user_id"]: row["item_id"] for row in lists if row["rank"] == "1"}
    with (tmp_path / "asked.csv").open() as file:
        assert {row["user_id"]: row["item_id"] for row in csv.DictReader(file)} == first

    found = check.numbers(split, ranked, "popularity")
    assert (found["hr"], found["ndcg"], found["mrr"]) == (1, 1, 1)
    assert found["ndcg_of_ten"] == pytest.approx(1 / sum(1 / np.log2(np.arange(2, 12))))


def test_the_largest_difference_is_found() -> None:
    ours = {"m": {"hr": 0.5, "novelty": 10.0}}
    assert check.apart(ours, {"m": {"hr": 0.5, "novelty": 10.5}}) == 0.05
