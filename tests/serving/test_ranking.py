"""The cut and the order of candidates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.serving.ranking import best_rows, combined, likeliest


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30),
    st.integers(1, 40),
)
def test_best_rows_are_a_stable_sort_of_the_eligible(
    rows: list[tuple[int, bool]], num: int
) -> None:
    scores = np.array([score for score, _ in rows], np.float32)
    eligible = np.array([allowed for _, allowed in rows], np.bool_)
    expected = sorted(np.flatnonzero(eligible).tolist(), key=lambda row: (-scores[row], row))[:num]
    assert best_rows(scores, eligible, num).tolist() == expected


def test_scores_by_hand() -> None:
    outcomes = np.array([[0.1, 0.5], [0.9, 0.2], [0.0, 0.0]], np.float32)
    p = likeliest(outcomes)
    assert p.tolist() == np.float32([0.5, 0.9, 0.0]).tolist()
    # logit(.5) = 0, logit(.9) = ln 9 = 2.1972, and 0 is kept at 1e-6: ln(1e-6) = -13.8155
    total = combined(np.float32([1.0, 2.0, 3.0]), p, 0.5)
    assert np.allclose(total, [1.0, 2 + 2.1972 / 2, 3 - 13.8155 / 2], atol=1e-3)
