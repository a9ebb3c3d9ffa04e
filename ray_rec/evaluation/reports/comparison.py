"""Models side by side on a page: bars, tables, what each has above a reference, by times seen."""

from collections.abc import Iterable
from html import escape
from typing import Any

from ray_rec.evaluation.reports.charts import bars, lines, stages
from ray_rec.evaluation.reports.html import DASH, number, table, with_error, with_interval
from ray_rec.evaluation.reports.summary import BASELINE

Plain = dict[str, Any]


def comparison(report: Plain, title: str = "What will they take next") -> Iterable[str]:
    """Yield bars and tables of rankers: metrics, what they have above references, by times seen."""
    model, metrics = report["model"], list(next(iter(report["recall"].values())))
    rows = [
        (ranker, [with_error(found[metric]) for metric in metrics])
        for ranker, found in report["recall"].items()
    ]
    yield f"<h2>{escape(title)}</h2>" + table(["", *metrics], rows, model)
    charts = [
        bars(metric, {ranker: found[metric] for ranker, found in report["recall"].items()})
        for metric in metrics
    ]
    yield f'<div class="charts">{"".join(charts)}</div>'
    for reference in report.get("references", [BASELINE]):
        rows = [
            (ranker, [with_interval(found[metric]) for metric in metrics])
            for ranker, found in report[f"above_{reference}"].items()
        ]
        heading = f"<h2>Above {escape(reference)}, on the same questions</h2>"
        yield heading + table(["", *metrics], rows, model)
    yield _buckets(report)
    yield _warm_up(report)
    yield _by_past(report)


def _buckets(report: Plain) -> str:
    buckets = report["by_times_seen"]
    rows = [
        (
            ranker,
            [
                with_error(found["hr"][ranker]) if "hr" in found else DASH
                for found in buckets.values()
            ],
        )
        for ranker in report["recall"]
    ]
    heads = [
        f"{name}<br><small>{found['targets']:,} targets</small>" for name, found in buckets.items()
    ]
    title = f"Share of targets in the first {report['cutoff']}, by how often taken before"
    return f"<h2>{title}</h2>" + table(["times taken", *heads], rows, report["model"])


def _warm_up(report: Plain) -> str:
    """Return a chart of the share of targets found, by what their items had collected."""
    found = report["warm_up"]
    names = [f"{name} ({part['targets']:,})" for name, part in found.items()]
    parts = [part.get("hr", {}) for part in found.values()]
    points = {r: [_point(part.get(r)) for part in parts] for r in report["recall"]}
    chart = stages(_share(report, "targets"), "events collected (targets)", names, points)
    about = (
        "Targets by how many events of their item there had been when they were asked for, "
        "learned or only counted; whiskers are one standard error."
    )
    return _section("As an item warms up", about, chart)


def _by_past(report: Plain) -> str:
    """Return a chart of the share of questions answered, by what their users had done."""
    found, metric = report.get("by_past"), f"hr@{report['cutoff']}"
    if found is None:
        return ""
    names = [f"{name} ({part['queries']:,})" for name, part in found.items()]
    parts = [part.get("recall", {}) for part in found.values()]
    points = {r: [_point(part.get(r, {}).get(metric)) for part in parts] for r in report["recall"]}
    chart = stages(_share(report, "questions"), "events of the user (questions)", names, points)
    about = (
        "Questions with a target among the first, by how much their user had done when asked; "
        "whiskers are one standard error."
    )
    return _section("As a user becomes known", about, chart)


def _share(report: Plain, what: str) -> str:
    return f"Share of {what} in the first {report['cutoff']}"


def _point(estimate: Plain | None) -> tuple[float, float] | None:
    return (estimate["value"], estimate["error"]) if estimate else None


def _section(heading: str, about: str, chart: str) -> str:
    return f'<h2>{heading}</h2><p class="about">{about}</p><div class="charts">{chart}</div>'


def learning(report: Plain) -> str:
    """Return a curve of the mean loss for each model that tells it, a line a seed."""
    found = report.get("learning")
    if not found:
        return ""
    seeds = report["seeds"]
    curves = [
        lines(
            f"{ranker}: loss",
            curve["unit"],
            {
                f"seed {seed}": list(enumerate(losses, 1))
                for seed, losses in zip(seeds, curve["losses"], strict=True)
            },
            zero=False,
        )
        for ranker, curve in found.items()
    ]
    return f'<h2>How it learned</h2><div class="charts">{"".join(curves)}</div>'


def lists(report: Plain) -> str:
    """Return the table of what the lists do with the catalogue; nothing where none were kept."""
    found = report.get("lists")
    if not found:
        return ""
    metrics = list(next(iter(found.values())))
    rows = [
        (ranker, [number(values[metric]["value"]) for metric in metrics])
        for ranker, values in found.items()
    ]
    about = (
        f"Of the {report['cutoff']} best items of each question: the share of the catalogue that "
        "is shown at all, how unequally (Gini, 0 is evenly), mean surprise in bits, mean distance "
        "between the words of two items in a list, and how many times more often learned than "
        "what was taken."
    )
    heads = ["", *(metric.replace("_", " ") for metric in metrics)]
    title = "What the lists show"
    return f"<h2>{title}</h2><p class=about>{about}</p>" + table(heads, rows, report["model"])
