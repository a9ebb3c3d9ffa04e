"""Ranking and probability metrics, vectorised; ties never count for the model.

A rank is 1 + (items that score higher) + 0.5 · (other items that score the same), so a model that
scores everything alike gets the middle rank, not the first.
"""

from typing import NamedTuple

import numpy as np

from ray_rec.errors import DataError
from ray_rec.features.arrays import AnyArray, Float64, Int64, first_of_groups

_EPSILON = 1e-7  # float32 probabilities of 0 and 1 would cost infinitely much


def target_ranks(scores: AnyArray, target_query: AnyArray, target_item: AnyArray) -> Float64:
    """Return the rank of each target [T] among all items: `scores` [Q, N], NaN ranks last.

    >>> target_ranks(np.array([[3.0, 1.0, 1.0, 2.0]]), np.array([0, 0]), np.array([0, 1]))
    array([1. , 3.5])
    """
    ranks = np.empty(len(target_query))
    for place, (query, item) in enumerate(
        zip(np.asarray(target_query).tolist(), np.asarray(target_item).tolist(), strict=True)
    ):
        row = scores[query]
        own = row[item]
        not_lower = np.count_nonzero(~(row < own))  # itself, equals, and what is higher or NaN
        equal = np.count_nonzero(row == own)
        ranks[place] = 1 + not_lower - equal + 0.5 * (equal - 1) if equal else len(row)
    return ranks


class Ranking(NamedTuple):
    """Metrics of each query, [Q] each; means over queries are what reports quote."""

    hit: Float64  # 1 if any target is among the first k
    recall: Float64  # share of the targets among the first k
    ndcg: Float64  # against the best order of as many targets
    reciprocal_rank: Float64  # of the best placed target


def ranking(ranks: Float64, target_query: Int64, num_queries: int, k: int = 10) -> Ranking:
    """Return the metrics at cutoff k of Q queries with at least one target each.

    Args:
        ranks: rank of each target, float [T].
        target_query: query of each target, int [T].

    Sources: NDCG with gain 1 and discount log2(1 + rank), Järvelin and Kekäläinen 2002.
    """
    num_targets = np.bincount(target_query, minlength=num_queries)
    found = ranks <= k
    hits = np.bincount(target_query, weights=found, minlength=num_queries)
    gain = np.where(found, 1 / np.log2(1 + ranks), 0.0)
    dcg = np.bincount(target_query, weights=gain, minlength=num_queries)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))])
    best = np.full(num_queries, np.inf)
    np.minimum.at(best, target_query, ranks)
    return Ranking(
        hit=(hits > 0).astype(np.float64),
        recall=hits / num_targets,
        ndcg=dcg / ideal[np.minimum(num_targets, k)],
        reciprocal_rank=1 / best,
    )


def auc(labels: AnyArray, scores: AnyArray, weights: AnyArray | None = None) -> float:
    """Return the area under the ROC curve, equal scores counted half; NaN with one class only.

    `weights` [n] are how often each row counts (default once).
    """
    order = np.argsort(scores, kind="stable")
    return sorted_auc(labels[order], scores[order], None if weights is None else weights[order])


def sorted_auc(labels: AnyArray, scores: AnyArray, weights: AnyArray | None = None) -> float:
    """Return `auc` of rows sorted by score: for many weightings of the same rows."""
    weight = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if not len(labels):
        return float("nan")
    first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    positive = np.add.reduceat(weight * labels, first)
    negative = np.add.reduceat(weight * (1 - labels), first)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs else float("nan")


def user_auc(labels: AnyArray, scores: AnyArray, users: AnyArray) -> float:
    """Return the mean AUC over users who have both outcomes, each user counting once.

    NaN where no user has both.
    """
    order = np.lexsort((scores, users))
    labels, scores, users = labels[order], scores[order], users[order]
    first = first_of_groups(users, scores)
    if not len(first):
        return float("nan")
    positive = np.add.reduceat(labels.astype(np.float64), first)
    negative = np.add.reduceat(1.0 - labels, first)
    user = first_of_groups(users[first])
    below = np.cumsum(negative) - negative
    below -= np.repeat(below[user], np.diff(user, append=len(first)))
    won = np.add.reduceat(positive * (below + 0.5 * negative), user)
    pairs = np.add.reduceat(positive, user) * np.add.reduceat(negative, user)
    both = pairs > 0
    return float((won[both] / pairs[both]).mean()) if both.any() else float("nan")


def log_loss(labels: AnyArray, probabilities: AnyArray) -> float:
    """Return the mean of -log likelihood of 0/1 labels, natural logarithm.

    Raises:
        DataError: no rows, or what are no probabilities.
    """
    _check(labels, probabilities)
    p = np.clip(probabilities.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels > 0, np.log(p), np.log1p(-p))))


class Calibration(NamedTuple):
    """Bins of equal width in predicted probability that hold any row."""

    predicted: Float64  # mean prediction
    observed: Float64  # share of positives
    rows: Int64

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap over rows (Naeini et al. 2015)."""
        gap = np.abs(self.predicted - self.observed)
        return float((gap * self.rows).sum() / self.rows.sum())


def calibration(labels: AnyArray, probabilities: AnyArray, bins: int = 15) -> Calibration:
    """Return predicted against observed rates in bins of equal width, the points of a curve.

    Raises:
        DataError: no rows, or what are no probabilities.
    """
    _check(labels, probabilities)
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    predicted = np.bincount(place, weights=probabilities, minlength=bins)[used] / rows[used]
    observed = np.bincount(place, weights=labels, minlength=bins)[used] / rows[used]
    return Calibration(predicted, observed, rows[used])


def _check(labels: AnyArray, probabilities: AnyArray) -> None:
    if not len(labels) or len(labels) != len(probabilities):
        raise DataError(
            f"{len(labels)} labels and {len(probabilities)} predictions; "
            "give one prediction for each label, and at least one"
        )
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"prediction {row} is {probabilities[row]}, which is no probability from 0 to 1; "
            "a model that diverged gives NaN, one without a sigmoid gives scores"
        )
