"""Intervals over users: what they cover, and that users, not rows, are drawn."""

import numpy as np
import pytest

from ray_rec.evaluation.metrics.bootstrap import auc_by_user, mean_by_user
from ray_rec.evaluation.metrics.ranking import auc


def test_error_of_independent_rows_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(size=(400, 1))
    (estimate,) = mean_by_user(values, np.arange(400))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.error == pytest.approx(values.std() / 20, rel=0.15)
    assert estimate.low < values.mean() < estimate.high


def test_rows_of_one_user_do_not_count_as_evidence_of_their_own() -> None:
    values = np.random.default_rng(1).normal(size=(400, 1))
    repeated, users = np.repeat(values, 9, axis=0), np.repeat(np.arange(400), 9)
    (once,) = mean_by_user(values, np.arange(400))
    (again,) = mean_by_user(repeated, users)
    assert again.error == pytest.approx(once.error)


def test_paired_columns_share_their_resamples() -> None:
    values = np.random.default_rng(1).normal(size=(100, 1))
    pair = np.hstack([values, values, np.zeros((100, 1))])
    first, second, zero = mean_by_user(pair, np.arange(100))
    assert first == second
    assert (zero.value, zero.error) == (0, 0)


def test_auc_with_its_difference() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 600)
    good, noise = labels + generator.normal(size=600), generator.normal(size=600)
    users = generator.integers(0, 60, 600)
    first, second, difference = auc_by_user(labels, np.stack([good, noise], 1), users)
    assert first.value == pytest.approx(auc(labels, good))
    assert difference.value == pytest.approx(first.value - second.value)
    assert difference.low > 0
    (alone,) = auc_by_user(labels, good[:, None], users)
    assert alone == first


def test_one_user_says_nothing_about_others() -> None:
    (estimate,) = mean_by_user(np.array([[1.0], [0.0]]), np.array([3, 3]))
    assert (estimate.value, estimate.error) == (0.5, 0)
