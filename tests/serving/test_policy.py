"""Propensities by hand, and against the frequencies of a simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.serving.policy import epsilon_greedy, greedy, request_generator


def test_greedy_is_certain() -> None:
    choice = greedy(5, 3)
    assert choice.picks.tolist() == [0, 1, 2]
    assert choice.propensities.tolist() == [1.0, 1.0, 1.0]
    assert greedy(2, 3).picks.tolist() == [0, 1]


def test_propensities_by_hand() -> None:
    # n = 2 slots, T = 10 items below: an explored slot shows each of them with 0.2 / 10,
    # and keeps its own item with 1 - 0.2 * 10 / 10.
    seen = {}
    for seed in range(200):
        choice = epsilon_greedy(12, 2, 0.2, np.random.default_rng(seed))
        for slot, (pick, p) in enumerate(zip(*choice, strict=True)):
            seen[slot, int(pick)] = float(p)
    assert seen[0, 0] == seen[1, 1] == pytest.approx(0.8)
    assert seen[0, 7] == pytest.approx(0.02)
    assert (0, 1) not in seen


def test_propensities_with_a_short_tail_by_hand() -> None:
    # n = 4 slots, T = 1 item below: a slot's ticket names it with 1/4, so it is shown with 0.4 / 4
    # and the greedy item stays with 1 - 0.4 * 1 / 4.
    for seed in range(50):
        choice = epsilon_greedy(5, 4, 0.4, np.random.default_rng(seed))
        for slot, (pick, p) in enumerate(zip(*choice, strict=True)):
            assert pick in (slot, 4)
            assert p == pytest.approx(0.1 if pick == 4 else 0.9)


@pytest.mark.parametrize(("ranked", "num", "epsilon"), [(12, 3, 0.3), (5, 4, 0.6), (6, 3, 1.0)])
def test_propensities_are_the_frequencies(ranked: int, num: int, epsilon: float) -> None:
    generator = np.random.default_rng(5)
    runs = 20_000
    shown = np.zeros((num, ranked))
    claimed = np.zeros((num, ranked))
    for _ in range(runs):
        choice = epsilon_greedy(ranked, num, epsilon, generator)
        slots = np.arange(num)
        shown[slots, choice.picks] += 1 / runs
        claimed[slots, choice.picks] = choice.propensities
    # Standard error at most sqrt(.25 / 20,000) = .0035; five of them.
    assert np.abs(shown - claimed).max() < 0.018
    assert np.allclose(claimed.sum(axis=1), 1.0)  # over the items a slot can show


@given(st.integers(0, 40), st.integers(1, 20), st.floats(0, 1), st.integers(0, 2**32))
def test_a_slate_has_distinct_items_and_positive_propensities(
    ranked: int, num: int, epsilon: float, seed: int
) -> None:
    choice = epsilon_greedy(ranked, num, epsilon, np.random.default_rng(seed))
    assert len(choice.picks) == min(num, ranked)
    assert len(set(choice.picks.tolist())) == len(choice.picks)
    assert all(0 < p <= 1 for p in choice.propensities)
    assert all(0 <= pick < ranked for pick in choice.picks)


def test_a_request_can_be_chosen_again_from_its_id() -> None:
    draws = [request_generator(1, "r1").random(), request_generator(1, "r1").random()]
    assert draws[0] == draws[1]
    assert request_generator(1, "r2").random() != draws[0]
    assert request_generator(2, "r1").random() != draws[0]
