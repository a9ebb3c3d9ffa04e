"""From the answers of models trained with several seeds to numbers with their uncertainty."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.metrics.bootstrap import Estimate, mean_by_user
from ray_rec.evaluation.metrics.buckets import BUCKETS, STAGES, bucket, stage
from ray_rec.evaluation.metrics.catalogue import (
    coverage,
    diversity,
    gini,
    novelty,
    popularity_bias,
)
from ray_rec.evaluation.metrics.paired import Comparison, Paired, compare, compare_by_bucket
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.reports.summary import metric_names
from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64

_CHUNK_LISTS = 1024

Plain = dict[str, Any]


def described(trials: Sequence[Ranked], references: Sequence[str], cutoff: int, seed: int) -> Plain:
    """Return means over seeds and queries by model, what each has above each reference, buckets.

    `by_times_seen` goes by how often a target was learned, `warm_up` by what it had collected when
    it was asked for; `by_past` are the metrics by what a user had done when asked (absent where
    that was not kept).

    Args:
        trials: for each training seed what all models answered, to the same questions; models that
            draw nothing answer alike under each.
        references: names of the models that the others are set against.
        cutoff: k of the metrics.
        seed: of the resampling.
    """
    metrics = {name: _metrics(trials, name, cutoff) for name in trials[0].ranks}
    user, names = trials[0].user, metric_names(cutoff)
    above: Plain = {f"above_{reference}": {} for reference in references}
    for reference, model in product(references, metrics):
        if model != reference:
            both = zip(names, metrics[model].T, metrics[reference].T, strict=True)  # [4, Q, S]
            above[f"above_{reference}"][model] = {
                metric: _plain(compare(_runs(user, first.T, second.T), seed, least=1))
                for metric, first, second in both
            }
    recall = {name: _estimates(names, values, user, seed) for name, values in metrics.items()}
    found = _found(trials, cutoff)
    return {
        "references": list(references),
        "recall": recall,
        **above,
        "by_times_seen": _by_times_seen(trials[0], found, references, seed),
        "warm_up": _shares(STAGES, stage(trials[0].collected), trials[0], found, seed),
        **_by_past(trials[0], metrics, names, seed),
    }


def listed(trials: Sequence[Ranked], counts: Int64, words: Float32) -> Plain:
    """Return what each model's lists do with the catalogue, means over seeds.

    Args:
        trials: as `described`.
        counts: how often each item was learned, [N].
        words: a vector of each item's text, [N, d].
    """
    out: Plain = {}
    for name in trials[0].lists:
        by_seed = [_listed(trial.lists[name], trial.seen, counts, words) for trial in trials]
        out[name] = {
            metric: {
                "value": float(np.mean([found[metric] for found in by_seed])),
                "seed_error": _deviation([found[metric] for found in by_seed]),
            }
            for metric in by_seed[0]
        }
    return out


def _listed(items: Int64, seen: Int64, counts: Int64, words: Float32) -> dict[str, float]:
    shown = np.bincount(items.ravel(), minlength=len(counts))
    chunks = range(0, len(items), _CHUNK_LISTS)
    apart = [diversity(words[items[at : at + _CHUNK_LISTS]]) for at in chunks]
    return {
        "coverage": coverage(shown),
        "gini": gini(shown),
        "novelty": float(novelty(items, counts).mean()),
        "diversity": float(np.concatenate(apart).mean()),
        "popularity_bias": popularity_bias(items, seen, counts),
    }


def _metrics(trials: Sequence[Ranked], name: str, cutoff: int) -> Float64:
    """Return the metrics of each query under each seed, [S, Q, 4]."""
    return np.stack(
        [
            np.stack(ranking(t.ranks[name], t.target_query, len(t.user), cutoff), axis=1)
            for t in trials
        ]
    )


def _estimates(names: Sequence[str], values: Float64, user: AnyArray, seed: int) -> Plain:
    """Return the mean of each column of [S, Q, K] over seeds and rows."""
    found = mean_by_user(values.mean(axis=0), user, seed)
    by_seed = values.mean(axis=1).T
    return {
        name: _with_seeds(estimate, column.tolist())
        for name, estimate, column in zip(names, found, by_seed, strict=True)
    }


def _with_seeds(estimate: Estimate, by_seed: list[float]) -> Plain:
    return estimate._asdict() | {"seed_error": _deviation(by_seed), "by_seed": by_seed}


def _deviation(by_seed: Sequence[float]) -> float:
    """Return the standard deviation between seeds; NaN of one alone."""
    return float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else float("nan")


def _runs(user: AnyArray, first: Float64, second: Float64) -> list[Paired]:
    """Return two models' answers [S, n] side by side."""
    return [Paired(user, *pair) for pair in zip(first, second, strict=True)]


def _plain(found: Comparison) -> Plain:
    """Return the difference, and beside it the ratio and what seeds alone move."""
    return found.difference._asdict() | {
        "ratio": found.ratio._asdict(),
        "seed_error": found.seed_error,
    }


def _found(trials: Sequence[Ranked], cutoff: int) -> dict[str, Float64]:
    """Return by model which targets are among the first under each seed, [S, T] of 0 and 1."""
    return {
        name: np.stack([trial.ranks[name] <= cutoff for trial in trials]).astype(np.float64)
        for name in trials[0].ranks
    }


def _by_times_seen(
    asked: Ranked, found: dict[str, Float64], references: Sequence[str], seed: int
) -> Plain:
    """Return the share of targets found among the first, by how often they had been learned."""
    user = asked.user[asked.target_query]
    out = _shares(BUCKETS, bucket(asked.seen), asked, found, seed)
    for reference, model in product(references, found):
        if model == reference:
            continue
        runs = _runs(user, found[model], found[reference])
        for name, above in compare_by_bucket(runs, asked.seen, seed, least=1).items():
            if above is not None:
                out[name].setdefault(f"above_{reference}", {})[model] = _plain(above)
    return out


def _by_past(asked: Ranked, metrics: dict[str, Float64], names: Sequence[str], seed: int) -> Plain:
    """Return each model's metrics [S, Q, 4] by how much the user had done when asked."""
    if not len(asked.past):
        return {}
    place, out = bucket(asked.past), Plain()
    for number, name in enumerate(BUCKETS):
        rows = place == number
        out[name] = {"queries": int(rows.sum())}
        if rows.any():
            out[name]["recall"] = {
                model: _estimates(names, values[:, rows], asked.user[rows], seed)
                for model, values in metrics.items()
            }
    return {"by_past": out}


def _shares(
    names: Sequence[str], place: Int64, asked: Ranked, found: dict[str, Float64], seed: int
) -> Plain:
    """Return the share of targets found among the first, by where each of them belongs, [T]."""
    user = asked.user[asked.target_query]
    out: Plain = {name: {"targets": int((place == at).sum())} for at, name in enumerate(names)}
    for at, name in enumerate(names):
        rows = place == at
        if rows.any():
            values = np.stack([column[:, rows] for column in found.values()], axis=2)
            out[name]["hr"] = _estimates(list(found), values, user[rows], seed)
    return out
