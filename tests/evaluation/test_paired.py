"""Comparisons over seeds: by hand, and what users and seeds count for."""

import numpy as np
import pytest

from ray_rec.errors import DataError
from ray_rec.evaluation.metrics.bootstrap import ratios_by_user
from ray_rec.evaluation.metrics.paired import Paired, compare, compare_by_bucket

USER = np.array([1, 1, 2])


def run(first: list[float], second: list[float], user: np.ndarray = USER) -> Paired:
    return Paired(user, np.array(first), np.array(second))


RUNS = [run([1, 0, 1], [0, 0, 1]), run([1, 1, 1], [1, 0, 1]), run([1, 0, 0], [0, 1, 0])]


def test_means_over_rows_and_seeds() -> None:
    found = compare(RUNS)
    assert found.first.value == 6 / 9
    assert found.second.value == 4 / 9
    assert found.difference.value == pytest.approx(2 / 9)
    assert found.ratio.value == 6 / 4
    assert (found.users, found.rows) == (2, 3)
    # By seed: 1/3, 1/3, 0.
    assert found.seed_error == pytest.approx(np.std([1 / 3, 1 / 3, 0], ddof=1))


def test_interval_by_hand() -> None:
    # User 1 has 4 of 6 against 2 of 6, user 2 has 2 of 3 against 2 of 3. Drawn twice, user 1 alone
    # gives 1/3 and 2, user 2 alone 0 and 1, each in a quarter of all resamples.
    found = compare(RUNS)
    assert (found.difference.low, found.difference.high) == pytest.approx((0, 1 / 3))
    assert (found.ratio.low, found.ratio.high) == pytest.approx((1, 2))


def test_pairing_takes_away_what_both_share() -> None:
    generator = np.random.default_rng(5)
    user, hard = np.arange(500), generator.normal(size=500)
    runs = [Paired(user, hard + 0.1 + generator.normal(0, 0.1, 500), hard) for _ in range(3)]
    found = compare(runs)
    assert found.difference.low > 0.09
    assert found.difference.high < 0.11
    assert found.difference.error < found.first.error / 5


def test_the_same_answers_under_more_seeds_are_no_new_evidence() -> None:
    generator = np.random.default_rng(6)
    one = Paired(np.arange(200), generator.normal(size=200), generator.normal(size=200))
    three, six = compare([one] * 3), compare([one] * 6)
    assert six.difference.error == pytest.approx(three.difference.error)
    assert three.seed_error == 0


def test_a_model_against_itself() -> None:
    found = compare([Paired(r.user, r.first, r.first) for r in RUNS])
    assert (found.difference.low, found.difference.high) == (0, 0)
    assert (found.ratio.low, found.ratio.high) == (1, 1)


def test_no_ratio_to_nothing() -> None:
    found = compare([run([1, 0, 1], [0, 0, 0])] * 3)
    assert np.isnan(found.ratio.value)
    assert np.isnan(found.ratio.low)
    assert found.difference.value == pytest.approx(2 / 3)


def test_resamples_without_a_ratio_are_left_out() -> None:
    # Only the second user has anything below the line: 3 / 2 whenever there is a ratio, or 2 / 2.
    (found,) = ratios_by_user(np.array([[1.0], [2.0]]), np.array([[0.0], [2.0]]), np.array([0, 1]))
    assert found.value == 3 / 2
    assert (found.low, found.high) == (1, 3 / 2)


def test_buckets() -> None:
    found = compare_by_bucket(RUNS, np.array([0, 21, 5]))
    assert found["6-20"] is None
    new, rare, often = found["0"], found["1-5"], found[">20"]
    assert new is not None
    assert rare is not None
    assert often is not None
    assert (new.first.value, new.second.value) == (1, pytest.approx(1 / 3))
    assert (rare.first.value, rare.rows) == (pytest.approx(2 / 3), 1)
    assert (often.first.value, often.second.value) == (pytest.approx(1 / 3),) * 2


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (RUNS[:2], "2 training seeds; it takes 3"),
        ([*RUNS, run([1, 1, 1], [1, 1, 1], np.array([1, 2, 2]))], "run 3 has rows of other users"),
        ([*RUNS, run([1, 1], [1, 1, 1])], r"run 3 has \[3, 2, 3\]"),
        ([run([], [], np.zeros(0))] * 3, r"run 0 has \[0, 0, 0\]"),
    ],
)
def test_what_cannot_be_compared(runs: list[Paired], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(runs)


def test_a_count_for_each_target() -> None:
    with pytest.raises(DataError, match="2 counts for 3 targets"):
        compare_by_bucket(RUNS, np.array([0, 1]))
