"""Metrics against numbers worked out by hand, as fractions."""

from fractions import Fraction
from math import log, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.errors import DataError
from ray_rec.evaluation.metrics.ranking import (
    auc,
    calibration,
    log_loss,
    ranking,
    target_ranks,
    user_auc,
)


def test_ranks_count_ties_against_the_model() -> None:
    scores = np.array([[5.0, 4.0, 4.0, 4.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    ranks = target_ranks(scores, np.array([0, 0, 0, 1]), np.array([0, 2, 4, 3]))
    # 4.0: one is higher, two others are equal: 1 + 1 + 0.5 · 2; all alike: 1 + 0 + 0.5 · 4.
    assert ranks.tolist() == [1, 3, 5, 3]


def test_scores_that_are_not_numbers_rank_last_and_help_nobody() -> None:
    scores = np.array([[np.nan, 1.0, 2.0]])
    assert target_ranks(scores, np.array([0, 0]), np.array([0, 1])).tolist() == [3, 3]


def test_ranking_of_baskets() -> None:
    # Query 0: three targets at ranks 1, 4 and 12; query 1: one target at rank 11; k = 10.
    got = ranking(np.array([1.0, 12.0, 11.0, 4.0]), np.array([0, 0, 1, 0]), 2)
    assert got.hit.tolist() == [1, 0]
    assert got.recall.tolist() == [float(Fraction(2, 3)), 0]
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert got.ndcg.tolist() == pytest.approx([(1 / log2(2) + 1 / log2(5)) / ideal, 0])
    assert got.reciprocal_rank.tolist() == [1, float(Fraction(1, 11))]


def test_ndcg_of_more_targets_than_places() -> None:
    ranks = np.array([1.0, 2.0, 3.0, 4.0])
    assert ranking(ranks, np.zeros(4, np.int64), 1, k=2).ndcg.tolist() == [1.0]
    assert ranking(ranks, np.zeros(4, np.int64), 1, k=2).recall.tolist() == [0.5]


def test_auc_counts_pairs() -> None:
    labels = np.array([1, 0, 1, 0, 0])
    scores = np.array([0.9, 0.8, 0.4, 0.4, 0.1])
    # 0.9 beats three; 0.4 beats one, ties one, loses one: (3 + 1 + 1/2) of 6 pairs.
    assert auc(labels, scores) == float(Fraction(9, 12))
    assert np.isnan(auc(np.ones(3), np.arange(3)))
    assert np.isnan(auc(np.ones(0), np.ones(0)))


def test_weights_are_repetitions() -> None:
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1])
    times = np.array([2, 1, 3, 0])
    repeated = auc(np.repeat(labels, times), np.repeat(scores, times))
    assert auc(labels, scores, times) == pytest.approx(repeated)


def test_auc_by_user_ignores_who_has_one_outcome() -> None:
    users = np.array([7, 7, 7, 8, 8, 9])
    labels = np.array([1, 0, 0, 0, 1, 1])
    scores = np.array([0.5, 0.1, 0.9, 0.2, 0.3, 0.9])
    assert user_auc(labels, scores, users) == float(Fraction(1, 2) + 1) / 2
    assert np.isnan(user_auc(labels[4:], scores[4:], users[4:]))
    assert np.isnan(user_auc(*[np.zeros(0)] * 3))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40
    )
)
def test_auc_by_user_is_the_mean_of_each_alone(rows: list[tuple[int, bool, int]]) -> None:
    users, labels, scores = (np.array(column, int) for column in zip(*rows, strict=True))
    alone = [auc(labels[users == user], scores[users == user]) for user in np.unique(users)]
    known = [area for area in alone if not np.isnan(area)]
    got = user_auc(labels, scores, users)
    assert got == pytest.approx(np.mean(known)) if known else np.isnan(got)


def test_log_loss_and_calibration() -> None:
    labels, p = np.array([1, 0, 1, 1]), np.array([0.8, 0.2, 0.5, 1.0])
    assert log_loss(labels, p) == pytest.approx(-(2 * log(0.8) + log(0.5)) / 4, abs=1e-6)
    bins = calibration(labels, p, bins=2)
    # [0, .5): one row, .2 against 0; [.5, 1]: three rows, 2.3/3 against 1.
    assert bins.rows.tolist() == [1, 3]
    assert bins.error == pytest.approx((0.2 * 1 + (1 - 2.3 / 3) * 3) / 4)
    assert bins.predicted.tolist() == pytest.approx([0.2, 2.3 / 3])
    assert bins.observed.tolist() == [0, 1]


@pytest.mark.parametrize("metric", [log_loss, calibration])
@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.5, np.nan], "prediction 1 is nan"),
        ([0.5, 1.2], "prediction 1 is 1.2"),
        ([-0.1, 0.5], "prediction 0 is -0.1"),
        ([0.5], "2 labels and 1 predictions"),
    ],
)
def test_what_is_no_probability(metric: Any, probabilities: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        metric(np.array([0, 1]), np.array(probabilities))
    with pytest.raises(DataError, match="at least one"):
        metric(np.zeros(0), np.zeros(0))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.data())
def test_rank_is_what_its_definition_says(row: list[int], data: st.DataObject) -> None:
    item = data.draw(st.integers(0, len(row) - 1))
    higher = sum(score > row[item] for score in row)
    equal = sum(score == row[item] for score in row) - 1
    got = target_ranks(np.array([row], np.float32), np.array([0]), np.array([item]))
    assert got.tolist() == [1 + higher + 0.5 * equal]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    positive = [score for label, score in rows if label]
    negative = [score for label, score in rows if not label]
    got = auc(np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], float))
    if not positive or not negative:
        assert np.isnan(got)
        return
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert got == pytest.approx(won / (len(positive) * len(negative)))
