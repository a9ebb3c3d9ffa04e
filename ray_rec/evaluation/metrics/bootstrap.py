"""How sure a number is: resampling users, because one user's queries are not independent."""

from typing import NamedTuple

import numpy as np

from ray_rec.evaluation.metrics.ranking import sorted_auc
from ray_rec.features.arrays import AnyArray, Float64, Int64

SAMPLES = 500
AUC_SAMPLES = 100  # each needs a pass over all rows


class Estimate(NamedTuple):
    """A value with its standard error and its 95 % interval (percentiles of the resamples)."""

    value: float
    error: float
    low: float
    high: float


def mean_by_user(values: AnyArray, users: AnyArray, seed: int = 0) -> list[Estimate]:
    """Return the mean of each column of `values` [n, K] over rows, users [n] resampled.

    Columns share their resamples: give differences of paired values as columns of their own.
    """
    return ratios_by_user(values, np.ones_like(values, np.float64), users, seed)


def ratios_by_user(
    over: AnyArray, under: AnyArray, users: AnyArray, seed: int = 0
) -> list[Estimate]:
    """Return sum(over) / sum(under) of each column [n, K], users [n] resampled.

    Columns share their resamples. Where the lower sum is 0 there is no ratio: NaN, and resamples
    in which that happens are left out of the interval.

    Source: percentile bootstrap of clusters, Efron and Tibshirani 1993, Davison and Hinkley 1997.
    """
    code = np.unique(users, return_inverse=True)[1]
    num_users = int(code.max(initial=-1)) + 1
    upper, lower = _sums(over, code, num_users), _sums(under, code, num_users)
    generator = np.random.default_rng(seed)
    ratios = np.empty((SAMPLES, over.shape[1]))
    for sample in range(SAMPLES):
        times = _resample(generator, num_users)
        ratios[sample] = _ratio(times @ upper, times @ lower)
    whole = _ratio(upper.sum(axis=0), lower.sum(axis=0))
    return [_estimate(*pair) for pair in zip(whole, ratios.T, strict=True)]


def auc_by_user(
    labels: AnyArray, columns: AnyArray, users: AnyArray, seed: int = 0
) -> list[Estimate]:
    """Return the AUC of each column of scores [n, K], and last that of column 0 less column 1.

    The difference is left out when there is one column.
    """
    code = np.unique(users, return_inverse=True)[1]
    orders = [np.argsort(scores, kind="stable") for scores in columns.T]
    ordered = [(labels[o], s[o], code[o]) for o, s in zip(orders, columns.T, strict=True)]
    generator = np.random.default_rng(seed)

    def areas(times: Float64) -> list[float]:
        found = [sorted_auc(label, score, times[user]) for label, score, user in ordered]
        return [*found, found[0] - found[1]] if len(found) > 1 else found

    num_users = int(code.max(initial=-1)) + 1
    samples = [areas(_resample(generator, num_users)) for _ in range(AUC_SAMPLES)]
    whole = areas(np.ones(num_users))
    return [
        _estimate(v, np.array(s)) for v, s in zip(whole, zip(*samples, strict=True), strict=True)
    ]


def _sums(values: AnyArray, code: Int64, num_users: int) -> Float64:
    """Return the sum of each column by user, [U, K]."""
    columns = values.T.astype(np.float64)
    return np.stack([np.bincount(code, column, num_users) for column in columns], axis=1)


def _ratio(over: Float64, under: Float64) -> Float64:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under != 0)


def _resample(generator: np.random.Generator, num_users: int) -> Float64:
    """Return how often each user is drawn when as many are drawn as there are."""
    drawn: Int64 = generator.integers(0, num_users, num_users)
    return np.bincount(drawn, minlength=num_users).astype(np.float64)


def _estimate(value: float, samples: Float64) -> Estimate:
    known = samples[~np.isnan(samples)]
    if len(known) < 2:
        return Estimate(float(value), float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(value), float(known.std(ddof=1)), float(low), float(high))
