"""Whether one model beats another: the same questions put to both, over several training seeds.

Users are resampled, not rows, and a user takes along all that both models answered them under every
seed: neither one user's queries nor one query's seeds count as evidence of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.metrics.bootstrap import Estimate, ratios_by_user
from ray_rec.evaluation.metrics.buckets import BUCKETS, bucket
from ray_rec.features.arrays import AnyArray, Bool

MIN_SEEDS = 3


class Paired(NamedTuple):
    """A metric of two models on the same n rows (queries, or targets), trained with one seed."""

    user: AnyArray  # [n]
    first: AnyArray  # [n]
    second: AnyArray  # [n]


class Comparison(NamedTuple):
    """Means over rows and seeds with their 95 % intervals, and what seeds alone move."""

    first: Estimate
    second: Estimate
    difference: Estimate  # first - second
    ratio: Estimate  # first / second; NaN where second is 0
    seed_error: float  # standard deviation of the difference between seeds; NaN of one alone
    users: int
    rows: int  # of one seed


def compare(runs: Sequence[Paired], seed: int = 0, least: int = MIN_SEEDS) -> Comparison:
    """Return how two models compare, given a run for each training seed.

    Args:
        runs: one for each seed, all with the same rows.
        seed: of the resampling.
        least: fewer runs are refused. Those of one or two seeds tell of users, not of luck.

    Raises:
        DataError: fewer than `least` seeds, none or unequal numbers of rows, or other users.

    Source: paired bootstrap, Efron and Tibshirani 1993, with users as clusters.
    """
    _check(runs, least)
    user, first, second = (np.concatenate(columns) for columns in zip(*runs, strict=True))
    one = np.ones(len(user))
    over = np.stack([first, second, first - second, first], axis=1, dtype=np.float64)
    under = np.stack([one, one, one, second], axis=1, dtype=np.float64)
    means = ratios_by_user(over, under, user, seed)
    by_seed = [float(np.mean(run.first) - np.mean(run.second)) for run in runs]
    return Comparison(
        first=means[0],
        second=means[1],
        difference=means[2],
        ratio=means[3],
        seed_error=float(np.std(by_seed, ddof=1)) if len(runs) > 1 else float("nan"),
        users=len(np.unique(user)),
        rows=len(runs[0].user),
    )


def compare_by_bucket(
    runs: Sequence[Paired], seen: AnyArray, seed: int = 0, least: int = MIN_SEEDS
) -> dict[str, Comparison | None]:
    """Return `compare` of targets by how often each was `seen` in training [n]; None without any.

    Raises:
        DataError: as `compare`, or `seen` has another length than the runs.
    """
    _check(runs, least)
    if len(seen) != len(runs[0].user):
        raise DataError(
            f"{len(seen)} counts for {len(runs[0].user)} targets; give one count for each"
        )
    place = bucket(seen)
    return {
        name: compare([_of_rows(run, place == number) for run in runs], seed, least)
        if (place == number).any()
        else None
        for number, name in enumerate(BUCKETS)
    }


def _of_rows(run: Paired, rows: Bool) -> Paired:
    return Paired(run.user[rows], run.first[rows], run.second[rows])


def _check(runs: Sequence[Paired], least: int) -> None:
    if len(runs) < least:
        raise DataError(
            f"{len(runs)} training seeds; it takes {least} to tell a model from its luck"
        )
    for number, run in enumerate(runs):
        lengths = [len(column) for column in run]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise DataError(
                f"run {number} has {lengths} users and values of the two models; "
                "give as many of each, and at least one"
            )
        if not np.array_equal(run.user, runs[0].user):
            raise DataError(
                f"run {number} has rows of other users than run 0; put the same questions, "
                "in the same order, to the models of every seed"
            )
