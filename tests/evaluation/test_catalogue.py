"""What lists do with the catalogue, by hand; and what holds of any list."""

from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ray_rec.evaluation.metrics.catalogue import (
    coverage,
    diversity,
    gini,
    novelty,
    popularity_bias,
    self_information,
    top_items,
)


def test_best_items_first_equals_as_they_stand() -> None:
    scores = np.array([[0.0, 5.0, 1.0, 5.0], [2.0, 2.0, 2.0, 2.0], [np.nan, np.nan, 7.0, np.nan]])
    assert top_items(scores, 3).tolist() == [[1, 3, 2], [0, 1, 2], [2, 0, 1]]
    assert top_items(scores[:1], 9).tolist() == [[1, 3, 2, 0]]


def test_coverage_counts_what_was_shown_at_all() -> None:
    assert coverage(np.array([3, 0, 1, 0])) == 1 / 2
    assert np.isnan(coverage(np.zeros(0)))


def test_gini_by_hand() -> None:
    # Ascending 0, 1, 3 with (2j - 4) = -2, 0, 2: 6 over 4 · 2.
    assert gini(np.array([3, 0, 1])) == 6 / 8
    assert gini(np.array([2, 2, 2, 2])) == 0
    assert gini(np.array([0, 0, 9, 0])) == 1
    assert np.isnan(gini(np.zeros(3)))
    assert np.isnan(gini(np.ones(1)))


def test_novelty_is_the_mean_surprise() -> None:
    counts = np.array([3, 1, 0])  # with one more each: shares 4/7, 2/7, 1/7
    assert self_information(counts).tolist() == pytest.approx([log2(7 / 4), log2(7 / 2), log2(7)])
    got = novelty(np.array([[0, 1], [2, 1]]), counts)
    assert got.tolist() == pytest.approx(
        [(log2(7 / 4) + log2(7 / 2)) / 2, (log2(7) + log2(7 / 2)) / 2]
    )


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    # Cosines: 0, sqrt 1/2, sqrt 1/2.
    assert diversity(vectors[None])[0] == pytest.approx(1 - sqrt(2) / 3)
    assert diversity(np.array([[[1.0, 2.0], [2.0, 4.0]]]))[0] == pytest.approx(0)
    assert diversity(np.array([[[1.0, 0.0], [-1.0, 0.0]]]))[0] == pytest.approx(2)
    assert diversity(np.array([[[1.0, 0.0], [0.0, 0.0]]]))[0] == 1  # one without text
    assert np.isnan(diversity(vectors[None, :1])[0])


def test_popularity_bias_by_hand() -> None:
    counts = np.array([10, 4, 1, 0])
    # Lists average (10 + 4 + 10 + 1) / 4, what was taken (4 + 1) / 2.
    lists = np.array([[0, 1], [0, 2]])
    assert popularity_bias(lists, counts[[1, 2]], counts) == (25 / 4) / (5 / 2)
    assert np.isnan(popularity_bias(lists, counts[[3]], counts))
    assert np.isnan(popularity_bias(lists, np.zeros(0, int), counts))


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.sampled_from([0.0, 1.0, 2.0, np.nan]),
    ),
    st.integers(1, 10),
)
def test_best_items_are_those_of_a_sort(scores: np.ndarray, k: int) -> None:
    whole = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")
    assert top_items(scores, k).tolist() == whole[:, :k].tolist()


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(any), st.integers(2, 5))
def test_gini_is_half_the_mean_difference(shown: list[int], times: int) -> None:
    n = len(shown)
    differences = sum(abs(a - b) for a in shown for b in shown)
    got = gini(np.array(shown))
    assert got == pytest.approx(differences / (2 * (n - 1) * sum(shown)))
    assert got == pytest.approx(gini(np.array(shown[::-1]) * times))
    assert -1e-12 <= got <= 1 + 1e-12


@given(arrays.arrays(np.float64, (2, 4, 3), elements=st.floats(-5, 5).map(lambda x: round(x, 2))))
def test_diversity_is_the_loop_over_pairs(vectors: np.ndarray) -> None:
    for query, got in zip(vectors, diversity(vectors), strict=True):
        norms = np.linalg.norm(query, axis=1)
        pairs = [(a, b) for a in range(4) for b in range(a)]
        cosines = [
            query[a] @ query[b] / (norms[a] * norms[b]) if norms[a] * norms[b] else 0.0
            for a, b in pairs
        ]
        assert got == pytest.approx(1 - np.mean(cosines), abs=1e-9)
