"""Metrics against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.training.metrics import Metrics, auc, ranked

SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=20)


def _ranked(scores: list[list[float]], query: list[int], target: list[int]) -> dict[str, float]:
    return ranked(torch.tensor(scores), np.array(query), np.array(target)).summary()


def test_a_target_of_rank_three_gains_half() -> None:
    got = _ranked([[5.0, 4.0, 3.0, 2.0]], [0], [2])
    assert got["hr@10"] == 1.0
    assert got["ndcg@10"] == pytest.approx(1 / math.log2(1 + 3))
    assert got["recall_loss"] == pytest.approx(math.log(math.exp(2) + math.e + 1 + math.exp(-1)))


def test_ties_count_half() -> None:
    # two others are equal: rank 1 + 0 + 0.5 · 2 = 2
    assert _ranked([[1.0, 1.0, 1.0, 0.0]], [0], [1])["ndcg@10"] == pytest.approx(1 / math.log2(3))


def test_everything_alike_is_no_hit_among_many() -> None:
    # rank 1 + 0.5 · 39 = 20.5
    got = _ranked([[0.0] * 40], [0], [7])
    assert (got["hr@10"], got["ndcg@10"]) == (0.0, 0.0)
    assert got["recall_loss"] == pytest.approx(math.log(40))


def test_the_tenth_hits_and_the_eleventh_does_not() -> None:
    scores = [list(map(float, range(20, 0, -1)))]
    assert _ranked(scores, [0, 0], [9, 10])["hr@10"] == 0.5


def test_each_target_is_ranked_for_its_own_query() -> None:
    scores = [[float(at) for at in range(30)], [float(-at) for at in range(30)]]
    assert _ranked(scores, [0, 1], [29, 29])["hr@10"] == 0.5


@given(SCORES, st.integers(0, 19))
def test_ranks_are_those_of_counting(scores: list[float], place: int) -> None:
    target = place % len(scores)
    greater = sum(s > scores[target] for s in scores)
    equal = sum(s == scores[target] for s in scores) - 1
    rank = 1 + greater + 0.5 * equal
    got = _ranked([scores], [0], [target])
    assert got["hr@10"] == float(rank <= 10)
    assert got["ndcg@10"] == pytest.approx(1 / math.log2(1 + rank) if rank <= 10 else 0.0)


def test_auc_counts_ties_half() -> None:
    # pairs (positive, negative): 2>1, 2=2 half, 3>1, 3>2: 3.5 of 4
    got = auc(np.array([2.0, 3.0, 1.0, 2.0]), np.array([True, True, False, False]))
    assert got == 3.5 / 4


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.booleans()), min_size=2))
def test_auc_is_the_share_of_pairs(pairs: list[tuple[float, bool]]) -> None:
    good = [score for score, positive in pairs if positive]
    bad = [score for score, positive in pairs if not positive]
    if not good or not bad:
        return
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    score, label = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assert auc(score, label) == pytest.approx(wins / len(good) / len(bad))


def test_metrics_add_by_weight_and_survive_an_exchange() -> None:
    total = Metrics({"auc": (2.0, 4.0)}) + Metrics({"auc": (1.0, 2.0), "hr@10": (0.0, 3.0)})
    assert total.summary() == {"auc": 0.5, "hr@10": 0.0}
    assert Metrics.unpack(total.pack()) == total


def test_what_nobody_measured_has_no_mean() -> None:
    assert Metrics({"auc": (0.0, 0.0)}).summary() == {}
