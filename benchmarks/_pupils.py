"""Several models that were asked the same in a replay: their answers kept by seed, and compared.

Of Complete Journey: baskets, and whether what is promoted is purchased.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._tables import interval, with_error
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.metrics.bootstrap import auc_by_user
from ray_rec.evaluation.prequential import MODEL
from ray_rec.evaluation.pupil import Pupil
from ray_rec.evaluation.reports.summary import compared
from ray_rec.features.arrays import AnyArray
from ray_rec.features.config import FeatureConfig

OUTCOME = FeatureConfig().outcome_types.index("purchase")
CUTOFF, KEYS = 10, ("hr@10", "ndcg@10", "auc")

Plain = dict[str, Any]
Run = Mapping[str, AnyArray]
"""What `answers` gives."""


def answers(pupils: Mapping[str, Pupil]) -> dict[str, Any]:
    """Return what all models answered, by name, having seen to it that all were asked the same."""
    ranked = [pupil.ledger.ranked() for pupil in pupils.values()]
    judged = [found for pupil in pupils.values() if (found := pupil.ledger.judged()) is not None]
    asked, (shown_window, shown) = ranked[0], judged[0]
    for other, (window, clicks) in zip(ranked, judged, strict=True):
        for key in ("window", "user", "target_query", "seen"):
            assert np.array_equal(getattr(asked, key), getattr(other, key)), key
        assert np.array_equal(shown_window, window)
        assert np.array_equal(shown.user, clicks.user)
        assert np.array_equal(shown.labels, clicks.labels)
    return {
        "names": list(pupils),
        "window": asked.window,
        "user": asked.user,
        "seen": asked.seen,
        "target_query": asked.target_query,
        "ranks": np.stack([found.ranks[MODEL] for found in ranked]),
        "shown_window": shown_window,
        "shown_user": shown.user,
        "labels": shown.labels,
        "clicks": np.stack([clicks.model for _, clicks in judged]),
    }


def ranked_by(runs: Sequence[Run], names: Sequence[str]) -> Ranked:
    """Return the questions of all seeds as one; a user takes all of theirs along."""
    sizes = np.cumsum([0, *(len(run["user"]) for run in runs)])
    return Ranked(
        np.concatenate([run["window"] for run in runs]),
        np.concatenate([run["user"] for run in runs]),
        np.concatenate([run["target_query"] + at for run, at in zip(runs, sizes, strict=False)]),
        seen := np.concatenate([run["seen"] for run in runs]),
        seen,  # what was collected since is not told apart
        {
            name: np.concatenate([run["ranks"][place] for run in runs])
            for place, name in enumerate(names)
        },
    )


def compared_to(runs: Sequence[Run], ranked: Ranked, names: Sequence[str], base: str) -> Plain:
    """Return each model's metrics, and what it has above `base`, with intervals over users."""
    some = Ranked(
        ranked.window,
        ranked.user,
        ranked.target_query,
        ranked.seen,
        ranked.collected,
        {name: ranked.ranks[name] for name in names},
    )
    found = compared(some, CUTOFF, 0, base)
    out: Plain = {}
    for name in names:
        area, above = _areas(runs, name, base)
        out[name] = {**found["recall"][name], "auc": area}
        if name != base:
            out[name]["above"] = {**found[f"above_{base}"][name], "auc": above}
    return out


def _areas(runs: Sequence[Run], name: str, base: str) -> tuple[Plain, Plain]:
    """Return the click AUC and what it has above that of `base`: each the mean over seeds."""
    found = []
    for run in runs:
        places = [run["names"].tolist().index(which) for which in (name, base)]
        columns = run["clicks"][places, :, OUTCOME].T
        areas = auc_by_user(run["labels"][:, OUTCOME], columns, run["shown_user"])
        found.append((areas[0], areas[2]))
    means = np.mean(np.array(found, np.float64), axis=0)
    fields = ("value", "error", "low", "high")
    one, other = (dict(zip(fields, row.tolist(), strict=True)) for row in means)
    return one, other


def table(models: Plain, above: str, first: str = "update") -> Iterator[str]:
    """Yield a table of models: metrics, and what they have above another."""
    heads = [*KEYS, *(f"{key}, {above}" for key in KEYS)]
    yield f"| {first} | " + " | ".join(heads) + " |"
    yield "| --- |" + " --- |" * len(heads)
    for name, values in models.items():
        cells = [with_error(values[key]) for key in KEYS]
        more = values.get("above")
        cells += [interval(more[key]) if more else "" for key in KEYS]
        yield f"| {name} | " + " | ".join(cells) + " |"
