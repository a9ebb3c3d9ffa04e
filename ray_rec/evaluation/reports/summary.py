"""From judged answers to numbers with their uncertainty: overall, by window, by how often seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.ledger import Ledger, Ranked
from ray_rec.evaluation.clicks.measures import Judged
from ray_rec.evaluation.metrics.bootstrap import Estimate, auc_by_user, mean_by_user
from ray_rec.evaluation.metrics.buckets import BUCKETS, STAGES, bucket, stage
from ray_rec.evaluation.metrics.ranking import (
    auc,
    calibration,
    log_loss,
    ranking,
    user_auc,
)
from ray_rec.evaluation.pupil import TWINS
from ray_rec.features.arrays import AnyArray, Bool, Float64, Int64

BASELINE = "popularity"
PRIOR = "item-prior"

Plain = dict[str, Any]


def summarise(
    ledger: Ledger, windows: list[Plain], model: str, cutoff: int, config: RunConfig
) -> Plain:
    """Return the results as JSON types; `windows` are described one by one and get theirs added."""
    ranked, clicks = ledger.ranked(), ledger.judged()
    outcomes, seed = config.features.outcome_types, config.learner.seed
    for window in windows:
        part = ranked.of_window(window["window"])
        window["queries"] = len(part.user)
        if len(part.user):
            window["recall"] = _means(part, cutoff)
        if clicks is not None:
            rows = clicks[0] == window["window"]
            window["clicks"] = _click_means(_of_rows(clicks[1], rows), outcomes)
    return {
        "model": model,
        "cutoff": cutoff,
        "queries": len(ranked.user),
        "users": len(np.unique(ranked.user)),
        "targets": len(ranked.target_query),
        "tested_windows": len(np.unique(ranked.window)),
        **compared(ranked, cutoff, seed),
        "by_times_seen": by_times_seen(ranked, cutoff, seed),
        "warm_up": _found_by(STAGES, stage(ranked.collected), ranked, cutoff, seed),
        "by_past": _by_past(ranked, cutoff, seed),
        "clicks": {} if clicks is None else _clicks(clicks[1], outcomes, seed),
        "windows": windows,
    }


def metric_names(cutoff: int) -> tuple[str, ...]:
    """Return the names of the ranking metrics in the order of `Ranking`."""
    return f"hr@{cutoff}", f"recall@{cutoff}", f"ndcg@{cutoff}", "mrr"


def _columns(ranked: Ranked, cutoff: int) -> dict[str, Float64]:
    """Return the metrics of each query, [Q, 4], by ranker."""
    return {
        name: np.stack(ranking(ranks, ranked.target_query, len(ranked.user), cutoff), axis=1)
        for name, ranks in ranked.ranks.items()
    }


def _means(ranked: Ranked, cutoff: int) -> Plain:
    names = metric_names(cutoff)
    return {
        ranker: dict(zip(names, values.mean(axis=0).tolist(), strict=True))
        for ranker, values in _columns(ranked, cutoff).items()
    }


def compared(ranked: Ranked, cutoff: int, seed: int, base: str = BASELINE) -> Plain:
    """Return each ranker's metrics, and what it has above one of them on the same queries."""
    names, by_ranker = metric_names(cutoff), _columns(ranked, cutoff)
    own = by_ranker[base]
    columns = [*by_ranker.values(), *(values - own for values in by_ranker.values())]
    estimates = mean_by_user(np.hstack(columns), ranked.user, seed)
    blocks = [_named(names, estimates[at : at + 4]) for at in range(0, len(estimates), 4)]
    plain = dict(zip(by_ranker, blocks, strict=False))
    above = dict(zip(by_ranker, blocks[len(by_ranker) :], strict=True))
    del above[base]
    return {"recall": plain, f"above_{base}": above}


def by_times_seen(ranked: Ranked, cutoff: int, seed: int) -> Plain:
    """Return the share of targets found among the first, by how often they had been seen."""
    return _found_by(BUCKETS, bucket(ranked.seen), ranked, cutoff, seed)


def _by_past(ranked: Ranked, cutoff: int, seed: int) -> Plain:
    """Return each ranker's metrics by how much the user had done when asked."""
    names, place, out = metric_names(cutoff), bucket(ranked.past), Plain()
    columns = _columns(ranked, cutoff)
    for number, name in enumerate(BUCKETS):
        rows = place == number
        out[name] = {"queries": int(rows.sum())}
        if rows.any():
            estimates = {
                ranker: mean_by_user(values[rows], ranked.user[rows], seed)
                for ranker, values in columns.items()
            }
            out[name]["recall"] = {r: _named(names, found) for r, found in estimates.items()}
    return out


def _found_by(names: Sequence[str], place: Int64, ranked: Ranked, cutoff: int, seed: int) -> Plain:
    """Return the share of targets found among the first, by where each of them belongs, [T]."""
    out: Plain = {}
    for number, name in enumerate(names):
        rows = place == number
        out[name] = {"targets": int(rows.sum())}
        if rows.any():
            found = np.stack([r[rows] <= cutoff for r in ranked.ranks.values()], axis=1)
            users = ranked.user[ranked.target_query[rows]]
            out[name]["hr"] = _named(tuple(ranked.ranks), mean_by_user(found, users, seed))
    return out


def beside_twins(
    ledger: Ledger, twins: Mapping[str, Ledger], model: str, cutoff: int, config: RunConfig
) -> Plain:
    """Return by single-task twin how it answered what the model of two tasks was asked.

    Both stand in each part as in `summarise`, with what the model has above the twin. Of one that
    learned no clicks there is no word on clicks.
    """
    outcomes, seed = config.features.outcome_types, config.learner.seed
    ranked, clicks = ledger.ranked(), ledger.judged()
    out: Plain = {}
    for name, twin in twins.items():
        ranks = {model: ranked.ranks[model], name: twin.ranked().ranks[model]}
        found = compared(replace(ranked, ranks=ranks), cutoff, seed, base=name)
        out[name] = {"recall": found["recall"], "above": found[f"above_{name}"][model]}
        out[name]["clicks"], judged = {}, twin.judged()
        if clicks is not None and judged is not None and TWINS[name][0]:
            both = clicks[1]._replace(prior=judged[1].model.astype(np.float64))
            out[name]["clicks"] = _clicks(both, outcomes, seed, other=name)
    return out


def _clicks(judged: Judged, outcomes: tuple[str, ...], seed: int, other: str = PRIOR) -> Plain:
    """Return by outcome type how well it was predicted; types that never or always happened: no."""
    out: Plain = {}
    for place, outcome in enumerate(outcomes):
        labels = judged.labels[:, place]
        if labels.min() == labels.max():
            continue
        both = np.stack([judged.model[:, place], judged.prior[:, place]], axis=1)
        areas = auc_by_user(labels, both, judged.user, seed)
        out[outcome] = {
            "rows": len(labels),
            "positives": int(labels.sum()),
            "auc": _named(("hybrid", other, "difference"), areas),
            "user_auc": _each(user_auc, labels, both, judged.user, other=other),
            "log_loss": _each(log_loss, labels, both, other=other),
            "ece": {n: calibration(labels, p).error for n, p in _sides(both, other)},
            "calibration": {n: _curve(labels, p) for n, p in _sides(both, other)},
        }
    return out


def _click_means(judged: Judged, outcomes: tuple[str, ...]) -> Plain:
    out: Plain = {}
    for place, outcome in enumerate(outcomes):
        labels = judged.labels[:, place]
        if len(labels) and labels.min() < labels.max():
            both = np.stack([judged.model[:, place], judged.prior[:, place]], axis=1)
            out[outcome] = {
                "rows": len(labels),
                "auc": _each(auc, labels, both),
                "log_loss": _each(log_loss, labels, both),
            }
    return out


def _sides(both: AnyArray, other: str) -> list[tuple[str, AnyArray]]:
    return [("hybrid", both[:, 0]), (other, both[:, 1])]


def _each(
    metric: Any, labels: AnyArray, both: AnyArray, *more: AnyArray, other: str = PRIOR
) -> dict[str, float]:
    return {name: metric(labels, p, *more) for name, p in _sides(both, other)}


def _curve(labels: AnyArray, p: AnyArray) -> Plain:
    bins = calibration(labels, p)
    return {name: values.tolist() for name, values in bins._asdict().items()}


def _of_rows(judged: Judged, rows: Bool) -> Judged:
    return Judged(judged.user[rows], judged.labels[rows], judged.model[rows], judged.prior[rows])


def _named(names: tuple[str, ...], estimates: list[Estimate]) -> Plain:
    return {n: e._asdict() for n, e in zip(names, estimates, strict=True)}
