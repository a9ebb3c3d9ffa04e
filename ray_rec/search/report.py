"""A search's results as files: a table and plots, and the best configuration for `--config`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from itertools import accumulate
from math import isfinite, log10
from pathlib import Path
from typing import Any

from ray_rec.config import RunConfig, changed
from ray_rec.errors import DataError
from ray_rec.evaluation.reports.charts import dots, lines
from ray_rec.evaluation.reports.html import page
from ray_rec.evaluation.reports.provenance import commit, machine
from ray_rec.evaluation.reports.report import provenance, write_files
from ray_rec.search.objective import Objective
from ray_rec.search.space import Dimension, overrides
from ray_rec.search.trials import METRIC, SearchOptions, Trial

Plain = dict[str, Any]

DRAWN = 6
"""So many of the best trials have their curves drawn."""


def report(
    objective: Objective,
    space: Sequence[Dimension],
    options: SearchOptions,
    trials: Sequence[Trial],
    stages_s: dict[str, float],
) -> Plain:
    """Return the results as JSON types; trials are sorted, the best first."""
    split = objective.split
    return {
        "metric": METRIC,
        "queries": len(split.target),
        "learned": int(split.train.sum()),
        "space": [asdict(dimension) for dimension in space],
        "trials": [asdict(trial) for trial in trials],
        "options": {**asdict(options), "objective": asdict(objective.options)},
        "config": objective.config.to_dict(),
        "seed": options.seed,
        "data": objective.data,
        "commit": commit(),
        "machine": machine(),
        "duration_s": round(sum(stages_s.values()), 2),
        "stages_s": {name: round(spent, 2) for name, spent in stages_s.items()},
    }


def write_search(found: Plain, trials: Sequence[Trial], config: RunConfig, folder: Path) -> Plain:
    """Write search.json, search.html and best.toml; return the best trial and where they are.

    Raises:
        DataError: every trial failed; the table with their errors is written all the same.
    """
    files = write_files(found, search_html(found, trials), folder / "search")
    best = trials[0]
    if not isfinite(best.value):
        raise DataError(
            f"none of {len(trials)} trials came to a result ({best.error or 'no metric'}); "
            f"see {files['html']}"
        )
    path = folder / "best.toml"
    path.write_text(to_toml(changed(config, overrides(best.params))), encoding="utf-8")
    return {"best": asdict(best), "config": str(path), **files}


def to_toml(config: RunConfig) -> str:
    """Return all that differs from the defaults, as a file for `--config`."""
    plain, usual = config.to_dict(), RunConfig().to_dict()
    sections = {name: value for name, value in plain.items() if isinstance(value, dict)}
    lines = _assigned({n: v for n, v in plain.items() if n not in sections}, usual)
    for name, section in sections.items():
        if differing := _assigned(section, usual[name]):
            lines += ["", f"[{name}]", *differing]
    return "\n".join(lines).lstrip() + "\n"


def _assigned(values: Plain, usual: Plain) -> list[str]:
    return [f"{k} = {_toml(v)}" for k, v in values.items() if v != usual[k]]


def _toml(value: Any) -> str:
    """Write a value as TOML, which shares numbers, text and lists with JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def search_html(found: Plain, trials: Sequence[Trial]) -> str:
    """Return the page of a search."""
    return page("Search", [_about(found), _table(trials), _plots(found, trials), provenance(found)])


def _about(found: Plain) -> str:
    options = found["options"]
    judged = options["objective"]
    text = (
        f"{len(found['trials'])} configurations of {judged['model']}, drawn by "
        f"{options['search']} with seed {options['seed']}. Each learned {found['learned']:,} "
        f"events {judged['passes']} times, or was stopped before, and was asked for "
        f"{found['queries']:,} out of the {judged['validation']:.0%} of all events that come next; "
        f"the {judged['test']:.0%} after these nobody saw. Sorted by {found['metric']} after the "
        "last pass."
    )
    return f'<p class="about">{escape(text)}</p>'


def _table(trials: Sequence[Trial]) -> str:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    metrics = list(dict.fromkeys(name for trial in trials for name in (trial.curve or [{}])[-1]))
    rows = [["trial", *metrics, *keys, "passes", "seconds", ""]]
    for trial in trials:
        last = (trial.curve or [{}])[-1]
        told = [f"{last[name]:.4f}" if name in last else "-" for name in metrics]
        values = [_short(trial.params.get(key, "")) for key in keys]
        counts = [str(len(trial.curve)), f"{trial.seconds:.1f}"]
        rows.append([str(trial.number), *told, *values, *counts, trial.error])
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="scroll"><table>{"".join(f"<tr>{row}</tr>" for row in cells)}</table></div>'


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plots(found: Plain, trials: Sequence[Trial]) -> str:
    good = sorted((t for t in trials if isfinite(t.value)), key=lambda trial: trial.number)
    best = list(accumulate((trial.value for trial in good), max))
    progress = {"best so far": list(zip([t.number for t in good], best, strict=True))}
    curves = {
        f"trial {trial.number}": [(k + 1.0, told[METRIC]) for k, told in enumerate(trial.curve)]
        for trial in trials[:DRAWN]
    }
    charts = [
        lines(f"Best {METRIC} so far", "trial", progress),
        lines(f"{METRIC} of the best {DRAWN}", "pass", curves),
        *(_against(Dimension(**dimension), good) for dimension in found["space"]),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _against(dimension: Dimension, trials: Sequence[Trial]) -> str:
    """Return the metric against one key; texts are numbered in the order of the space."""
    key, label = dimension.key, dimension.key

    def place(value: Any) -> float:
        if dimension.kind == "choice":
            return float(dimension.values.index(value))
        return log10(value) if dimension.kind == "loguniform" else float(value)

    if dimension.kind == "choice":
        named = (f"{number}: {value}" for number, value in enumerate(dimension.values))
        label = f"{key} ({', '.join(named)})"
    elif dimension.kind == "loguniform":
        label = f"log10 of {key}"
    return dots(f"{METRIC} by {key}", label, [(place(t.params[key]), t.value) for t in trials])
