"""Several models that were asked the same in a replay: their answers kept by seed, and compared.

Of Complete Journey: baskets, and whether what is promoted is purchased.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import commit, short
from benchmarks._tables import interval, with_error
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.metrics.bootstrap import auc_by_user
from ray_rec.evaluation.prequential import MODEL
from ray_rec.evaluation.pupil import Pupil
from ray_rec.evaluation.reports.summary import compared
from ray_rec.features.arrays import AnyArray
from ray_rec.features.config import FeatureConfig

_ASKED = ("window", "user", "target_query", "seen")
OUTCOME = FeatureConfig().outcome_types.index("purchase")
CUTOFF, KEYS = 10, ("hr@10", "ndcg@10", "auc")

Plain = dict[str, Any]
Run = Mapping[str, AnyArray]
"""What `answers` gives."""


def measure(path: Path, key: str, answered: Callable[[], Mapping[str, Any]], again: bool) -> None:
    """Keep a seed's answers at a path with their key and commit, unless those of this key are."""
    if not again and path.exists() and str(np.load(path).get("key")) == key:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, key=key, commit=commit(), **answered())


def kept_runs(folder: Path) -> dict[int, Run]:
    """Return the answers kept in a folder by seed, as many as there are.

    Raises:
        DataError: they are of models of other names, or there are none.
    """
    runs: dict[int, Run] = {}
    for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem)):
        runs[int(path.stem)] = dict(np.load(path))
    if len({tuple(run["names"].tolist()) for run in runs.values()}) != 1:
        raise DataError(f"no answers of the same models in {folder}; measure all seeds again")
    return runs


def commits(runs: Sequence[Run]) -> str:
    """Return by which commits answers were given."""
    return ", ".join(sorted({short(str(run["commit"])) for run in runs}))


def answers(pupils: Mapping[str, Pupil]) -> dict[str, Any]:
    """Return what all models answered, by name.

    Raises:
        DataError: not all were asked the same.
    """
    ranked = [pupil.ledger.ranked() for pupil in pupils.values()]
    judged = [found for pupil in pupils.values() if (found := pupil.ledger.judged()) is not None]
    asked, (shown_window, shown) = ranked[0], judged[0]
    same = [
        *(np.array_equal(getattr(asked, k), getattr(each, k)) for each in ranked for k in _ASKED),
        *(np.array_equal(shown_window, window) for window, _ in judged),
        *(np.array_equal(shown.user, clicks.user) for _, clicks in judged),
        *(np.array_equal(shown.labels, clicks.labels) for _, clicks in judged),
    ]
    if len(judged) != len(ranked) or not all(same):
        raise DataError("models were not asked the same, so nothing can be compared")
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
            name: np.concatenate([run["ranks"][run["names"].tolist().index(name)] for run in runs])
            for name in names
        },
    )


def compared_to(runs: Sequence[Run], ranked: Ranked, names: Sequence[str], base: str) -> Plain:
    """Return each model's metrics, and what it has above `base`, with intervals over users."""
    some = replace(ranked, ranks={name: ranked.ranks[name] for name in names})
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
