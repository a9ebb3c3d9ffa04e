"""From scores to a ranking: which rows may be shown, the best of them, and their final order."""

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_SURE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""


def best_rows(scores: Float32, eligible: Bool, num: int) -> Int64:
    """Return the `num` best eligible rows (fewer when there are fewer), best first.

    Ties fall to the smaller row. Filtering comes before the cut, so a filter never costs answers.

    >>> best_rows(np.float32([1, 5, 3, 5]), np.array([True, True, False, True]), 2).tolist()
    [1, 3]
    """
    rows = np.flatnonzero(eligible)
    values = scores[rows]
    if num < len(rows):
        cut = np.partition(values, len(values) - num)[len(values) - num]
        near = values >= cut
        rows, values = rows[near], values[near]
    order = np.lexsort((rows, -values))
    return rows[order[:num]]


def likeliest(outcomes: Float32) -> Float32:
    """Return [K] the probability of each candidate's likeliest outcome, of [K, O]."""
    best: Float32 = np.max(outcomes, axis=1)
    return best


def combined(recall: Float32, p_click: Float32, click_weight: float) -> Float32:
    """Return recall score + click_weight * logit(p_click), [K].

    >>> combined(np.float32([1, 1]), np.float32([0.5, 0.75]), 2.0).astype(float).round(4).tolist()
    [1.0, 3.1972]
    """
    p = np.clip(p_click.astype(np.float64), _SURE, 1 - _SURE)
    return (recall + click_weight * np.log(p / (1 - p))).astype(np.float32)
