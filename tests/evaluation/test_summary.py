"""Numbers of a report from a ledger small enough to work out by hand."""

import re

import numpy as np
import pytest

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.ledger import Ledger
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.clicks.measures import Judged
from ray_rec.evaluation.reports.provenance import commit
from ray_rec.evaluation.reports.summary import summarise
from ray_rec.features.histories import History

FRESH = Interactions(
    np.array([5, 5, 6]), np.array([0, 0, 0]), np.array([90, 100, 99]), np.zeros(3, np.int8)
)


def queries(user: int, past: int, target_query: list[int]) -> Queries:
    """Ask for item 0 at 100 ms, which two others took before that in the same window."""
    query = np.array(target_query)
    history = History(np.zeros(past, np.int32), np.zeros(past, np.int8), np.zeros(past, np.int64))
    items = np.zeros(len(query), int)
    return Queries(np.array([user]), np.array([100]), [history], query, items, FRESH, 9)


@pytest.fixture
def summary() -> dict:
    ledger = Ledger()
    ranks = {"hybrid": np.array([1.0, 20.0]), "popularity": np.array([2.0, 11.0])}
    ledger.add_ranks(3, queries(1, 0, [0, 0]), np.array([0, 30]), ranks)
    ranks = {"hybrid": np.array([5.0]), "popularity": np.array([50.0])}
    ledger.add_ranks(4, queries(2, 7, [0]), np.array([7]), ranks)
    labels = np.array([[0, 0, 1], [0, 0, 0]], np.float32)
    model = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.1]], np.float32)
    ledger.add_clicks(4, Judged(np.array([1, 2]), labels, model, 1 - model.astype(float)))
    windows = [{"window": number} for number in (2, 3, 4)]
    return summarise(ledger, windows, "hybrid", 10, RunConfig())


def test_overall(summary: dict) -> None:
    assert (summary["queries"], summary["users"], summary["targets"]) == (2, 2, 3)
    assert summary["tested_windows"] == 2
    hybrid, popular = summary["recall"]["hybrid"], summary["recall"]["popularity"]
    assert hybrid["hr@10"]["value"] == 1.0
    assert hybrid["recall@10"]["value"] == (1 / 2 + 1) / 2
    assert hybrid["mrr"]["value"] == (1 + 1 / 5) / 2
    assert popular["hr@10"]["value"] == 1 / 2
    above = summary["above_popularity"]
    assert list(above) == ["hybrid"]
    assert above["hybrid"]["hr@10"]["value"] == 1 / 2
    assert above["hybrid"]["hr@10"]["low"] <= 1 / 2 <= above["hybrid"]["hr@10"]["high"]


def test_buckets_count_targets(summary: dict) -> None:
    buckets = summary["by_times_seen"]
    assert {name: bucket["targets"] for name, bucket in buckets.items()} == {
        "0": 1,
        "1-5": 0,
        "6-20": 1,
        ">20": 1,
    }
    assert buckets["0"]["hr"]["hybrid"]["value"] == 1
    assert buckets[">20"]["hr"]["hybrid"]["value"] == 0
    assert "hr" not in buckets["1-5"]


def test_stages_count_what_was_collected_until_the_question(summary: dict) -> None:
    stages = summary["warm_up"]
    assert {name: part["targets"] for name, part in stages.items() if part["targets"]} == {
        "2": 1,  # none before the window, two of it before the question, one at its time
        "6-10": 1,
        ">20": 1,
    }
    assert list(stages) == ["0", "1", "2", "3-5", "6-10", "11-20", ">20"]
    assert stages["2"]["hr"]["hybrid"]["value"] == 1
    assert stages["6-10"]["hr"]["popularity"]["value"] == 0


def test_questions_go_by_what_their_user_had_done(summary: dict) -> None:
    told = summary["by_past"]
    assert [part["queries"] for part in told.values()] == [1, 0, 1, 0]
    assert told["0"]["recall"]["hybrid"]["hr@10"]["value"] == 1
    assert told["0"]["recall"]["hybrid"]["recall@10"]["value"] == 1 / 2
    assert told["6-20"]["recall"]["popularity"]["hr@10"]["value"] == 0
    assert "recall" not in told["1-5"]


def test_the_commit_is_told_with_the_mark_of_changed_code() -> None:
    assert re.fullmatch("[0-9a-f]{12}(-dirty)?", commit() or "0" * 12)


def test_windows(summary: dict) -> None:
    untested, first, second = summary["windows"]
    assert (untested["queries"], first["queries"], second["queries"]) == (0, 1, 1)
    assert "recall" not in untested
    assert second["recall"]["popularity"]["hr@10"] == 0
    assert second["clicks"]["purchase"]["auc"] == {"hybrid": 1.0, "item-prior": 0.0}


def test_clicks_only_of_outcomes_that_differ(summary: dict) -> None:
    assert list(summary["clicks"]) == ["purchase"]
    found = summary["clicks"]["purchase"]
    assert (found["rows"], found["positives"]) == (2, 1)
    assert found["auc"]["hybrid"]["value"] == 1.0
    assert found["auc"]["difference"]["value"] == 1.0
    assert found["ece"]["hybrid"] == pytest.approx(0.1)
