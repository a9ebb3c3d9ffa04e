"""Numbers of an evaluation over seeds, from answers small enough to work out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.metrics.catalogue import word_vectors
from ray_rec.evaluation.reports.trials import described, listed

USER, QUERY = np.array([1, 1, 2]), np.arange(3)
SEEN = np.array([0, 3, 30])
COLLECTED = np.array([1, 3, 30])
POPULARITY = np.array([1.0, 20.0, 1.0])
LISTS = np.array([[0, 1], [0, 1], [0, 1]])


def trial(ranks: list[float], lists: list[list[int]]) -> Ranked:
    answers = {"sasrec": np.array(ranks), "popularity": POPULARITY}
    made = {"sasrec": np.array(lists), "popularity": LISTS}
    return Ranked(np.zeros(3, int), USER, QUERY, SEEN, COLLECTED, answers, made)


TRIALS = [
    trial([2, 11, 1], [[0, 1], [2, 1], [3, 0]]),
    trial([2, 3, 1], [[0, 1], [0, 1], [0, 1]]),
    trial([99, 3, 1], [[2, 1], [0, 1], [0, 3]]),
]


@pytest.fixture(scope="module")
def report() -> dict:
    return described(TRIALS, ("popularity",), 10, seed=0)


def test_means_over_seeds(report: dict) -> None:
    found = report["recall"]["sasrec"]["hr@10"]
    assert found["by_seed"] == pytest.approx([2 / 3, 1, 2 / 3])
    assert found["value"] == pytest.approx(7 / 9)
    assert found["seed_error"] == pytest.approx(np.std([2 / 3, 1, 2 / 3], ddof=1))
    assert report["recall"]["popularity"]["hr@10"]["seed_error"] == 0
    mrr = report["recall"]["sasrec"]["mrr"]
    assert mrr["by_seed"][0] == pytest.approx((1 / 2 + 1 / 11 + 1) / 3)


def test_what_is_above_a_reference(report: dict) -> None:
    assert list(report["above_popularity"]) == ["sasrec"]
    found = report["above_popularity"]["sasrec"]["hr@10"]
    assert found["value"] == pytest.approx(7 / 9 - 2 / 3)
    assert found["ratio"]["value"] == pytest.approx(7 / 6)
    # By users: the first 2/3 of an answer against 1/2, the second alike.
    assert (found["low"], found["high"]) == pytest.approx((0, 1 / 6))


def test_buckets_are_of_the_same_runs(report: dict) -> None:
    new, rare, often = (report["by_times_seen"][name] for name in ("0", "1-5", ">20"))
    assert new["hr"]["sasrec"]["value"] == pytest.approx(2 / 3)
    assert rare["hr"]["sasrec"]["by_seed"] == [0, 1, 1]
    assert rare["above_popularity"]["sasrec"]["value"] == pytest.approx(2 / 3)
    assert often["above_popularity"]["sasrec"]["value"] == 0
    assert report["by_times_seen"]["6-20"] == {"targets": 0}


def test_stages_go_by_what_was_collected(report: dict) -> None:
    stages = report["warm_up"]
    assert [part["targets"] for part in stages.values()] == [0, 1, 0, 1, 0, 0, 1]
    assert stages["1"]["hr"]["sasrec"]["by_seed"] == [1, 1, 0]
    assert stages["3-5"]["hr"]["sasrec"]["value"] == pytest.approx(2 / 3)
    assert stages["3-5"]["hr"]["popularity"]["value"] == 0


def test_questions_go_by_what_their_user_had_done() -> None:
    trials = [replace(trial, past=np.array([0, 6, 0])) for trial in TRIALS]
    told = described(trials, (), 10, seed=0)["by_past"]
    assert [part["queries"] for part in told.values()] == [2, 0, 1, 0]
    assert told["0"]["recall"]["sasrec"]["hr@10"]["by_seed"] == [1, 1, 1 / 2]
    assert told["6-20"]["recall"]["popularity"]["hr@10"]["value"] == 0
    assert "by_past" not in described(TRIALS, (), 10, seed=0)


def test_one_seed_tells_of_users_and_not_of_luck() -> None:
    report = described(TRIALS[:1], ("popularity",), 10, seed=0)
    found = report["above_popularity"]["sasrec"]["hr@10"]
    assert found["value"] == 0
    assert np.isnan(found["seed_error"])
    assert np.isnan(report["recall"]["sasrec"]["hr@10"]["seed_error"])


def test_what_lists_do_with_the_catalogue() -> None:
    counts = np.array([8, 4, 2, 1])
    words = word_vectors(["red tea", "red cup", "green tea", "blue"])
    found = listed(TRIALS, counts, words)
    assert found["popularity"]["coverage"] == {"value": 1 / 2, "seed_error": 0}
    assert found["sasrec"]["coverage"]["value"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    # Of two items with 8 and 4 events, where 11 events are a target's mean.
    assert found["popularity"]["popularity_bias"]["value"] == pytest.approx(6 / 11)
    # Two of four texts have "red": it weighs log 2, "tea" too, "cup" log 4.
    cosine = 1 / np.sqrt(2 * (1 + 4))
    assert found["popularity"]["diversity"]["value"] == pytest.approx(1 - cosine, abs=1e-6)


def test_answers_of_another_seed_stand_beside_those_that_draw_nothing() -> None:
    other = Ranked(np.zeros(3, int), USER, QUERY, SEEN, SEEN, {"sasrec": np.ones(3)}, {})
    both = TRIALS[0].with_answers(other)
    assert both.ranks["popularity"] is POPULARITY
    assert both.ranks["sasrec"].tolist() == [1, 1, 1]
    assert TRIALS[0].ranks["sasrec"].tolist() == [2, 11, 1]
