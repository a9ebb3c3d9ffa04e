"""Several scores as one, by numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ray_rec.errors import ConfigError
from ray_rec.model.combining import borda, check_combine, click_weights, recall_weights


def test_a_vote_counts_the_items_beaten() -> None:
    # of three others the best beats all, the two in the middle tie and beat the last
    assert borda(np.float32([2, 9, 2, -np.inf])) == pytest.approx([1.5 / 3, 1, 1.5 / 3, 0])
    assert borda(np.float32([[4.0]])).tolist() == [[0.0]]


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 3), st.integers(2, 8)), elements=st.integers(-3, 3)
    )
)
def test_votes_add_up_and_follow_the_order_alone(scores: np.ndarray) -> None:
    votes, num = borda(scores), scores.shape[1]
    assert votes.sum(1) == pytest.approx(np.full(len(scores), num / 2))
    assert borda(np.exp(scores)) == pytest.approx(votes)
    naive = [
        [sum(o < s for o in row) + 0.5 * sum(o == s for o in row) - 0.5 for s in row]
        for row in scores
    ]
    assert votes == pytest.approx(np.array(naive) / (num - 1))


def test_a_single_model_is_scaled_to_how_often_it_is_right() -> None:
    # the second item is ahead by 1 and comes in 3 of 4 questions: softmax(w) = 3/4 at w = log 3
    scores = np.float32([[[0.0, 1.0]] * 4])
    found = recall_weights(scores, np.arange(4), np.array([1, 1, 1, 0]))
    assert found == pytest.approx([math.log(3)], abs=2e-3)
    logits = np.float32([[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]])
    labels = np.float32([1, 1, 1, 0, 0, 0, 0, 1])
    assert click_weights(logits, labels) == pytest.approx([math.log(3)], abs=2e-3)


def test_a_model_that_is_wrong_gets_no_weight_and_equal_ones_share() -> None:
    right = np.float32([[0.0, 1.0]] * 4)
    target = np.array([1, 1, 1, 0])
    good, bad = recall_weights(np.stack([right, -3 * right]), np.arange(4), target)
    # but for the ridge, which pulls both a little towards one half
    assert (good, bad) == (pytest.approx(math.log(3), abs=0.01), pytest.approx(0, abs=0.01))
    pair = recall_weights(np.stack([right, right]), np.arange(4), target)
    assert pair == pytest.approx([math.log(3) / 2] * 2, abs=2e-3)


def test_several_targets_of_a_question_count_each() -> None:
    scores = np.float32([[[0.0, 1.0], [0.0, 1.0]]])
    found = recall_weights(scores, np.array([0, 0, 1, 1]), np.array([1, 1, 1, 0]))
    assert found == pytest.approx([math.log(3)], abs=2e-3)


def test_weights_stay_finite_where_a_model_is_never_wrong() -> None:
    found = recall_weights(np.float32([[[0.0, 1.0]] * 4]), np.arange(4), np.ones(4, np.int64))
    assert 1 < found[0] < 20


def test_a_way_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="known are score-average"):
        check_combine("median")
