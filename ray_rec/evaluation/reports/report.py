"""A backtest's report as files: backtest.json for programs, backtest.html for people."""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from ray_rec.evaluation.reports.charts import lines, reliability
from ray_rec.evaluation.reports.comparison import comparison
from ray_rec.evaluation.reports.html import number, page, table, with_error, with_interval

Plain = dict[str, Any]


def write_report(report: Plain, folder: Path) -> Plain:
    """Write both files and return the headline: the main metrics by ranker and where the files are.

    What is not a number (no such pairs, too few users) is null in JSON and a dash in HTML.
    """
    return headline(report) | write_files(report, html(report), folder / "backtest")


def write_files(report: Plain, text: str, stem: Path) -> Plain:
    """Write stem.json and stem.html; return where they are."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    data, page = stem.with_suffix(".json"), stem.with_suffix(".html")
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    page.write_text(text, encoding="utf-8")
    return {"json": str(data), "html": str(page)}


def headline(report: Plain) -> Plain:
    """Return the values that one would quote."""
    recall = {
        ranker: {metric: round(estimate["value"], 4) for metric, estimate in metrics.items()}
        for ranker, metrics in report["recall"].items()
    }
    click_auc = {
        outcome: {name: round(value["value"], 4) for name, value in found["auc"].items()}
        for outcome, found in report["clicks"].items()
    }
    found = {"queries": report["queries"], "recall": recall, "click_auc": click_auc}
    if "twins" in report:
        found["above_twins"] = {name: _above_twin(twin) for name, twin in report["twins"].items()}
    return found | {"duration_s": report["duration_s"]}


def _above_twin(twin: Plain) -> Plain:
    """Return what the model of two tasks has above one of its twins."""
    auc = {outcome: found["auc"]["difference"] for outcome, found in twin["clicks"].items()}
    parts = {**twin["above"], **{f"{outcome} auc": value for outcome, value in auc.items()}}
    return {metric: round(estimate["value"], 4) for metric, estimate in parts.items()}


def html(report: Plain) -> str:
    """Return the page of a backtest."""
    sections = [_about(report), *comparison(report), _curves(report), *clicks(report)]
    return page("Backtest", [*sections, *_twins(report), provenance(report)])


def _about(report: Plain) -> str:
    most = report["options"]["max_queries"]
    sample = f"at most {most} a window, chosen by a stable hash" if most else "all there are"
    ends = [window["until_ms"] for window in report["windows"] if window["until_ms"]]
    text = (
        f"{report['queries']:,} queries of {report['users']:,} users ({sample}), "
        f"{report['targets']:,} targets, {report['tested_windows']} windows until "
        f"{_date(max(ends)) if ends else 'an unknown time'}. Each query is ranked over the full "
        "catalogue with what was known strictly before it: the model as it stood before the "
        "window, which it learned afterwards. A basket is one query with several targets; equal "
        "scores count half a rank each. ± is one standard error over users; intervals are 95 %, "
        "both by bootstrap."
    )
    return f'<p class="about">{escape(text)}</p>'


def _curves(report: Plain) -> str:
    curves = [
        lines(metric, "window", _series(report["windows"], "recall", metric))
        for metric in next(iter(report["recall"].values()))
    ]
    losses = [
        lines(name.replace("_", " "), "window", {report["model"]: points}, zero=False)
        for name, points in _losses(report["windows"]).items()
    ]
    return f'<h2>Window by window</h2><div class="charts">{"".join(curves + losses)}</div>'


def clicks(report: Plain) -> Iterable[str]:
    """Yield a section for each outcome that was predicted."""
    if not report["clicks"]:
        return
    yield (
        '<h2>Will what is shown be taken</h2><p class="about">Predicted when the exposure arrived, '
        "judged when its attribution window had closed, from the first closed one on. The item "
        "prior is the smoothed rate at "
        "which the item was taken when shown before.</p>"
    )
    for outcome, found in report["clicks"].items():
        counts = f"{found['rows']:,} shown, {found['positives']:,} taken"
        if "difference" in found["auc"]:
            counts += f"; AUC above prior: {with_interval(found['auc']['difference'])}"
        judged = _judged(report["model"], outcome, found)
        yield f"{judged}<p>{counts}</p>{_click_charts(report, outcome, found['calibration'])}"


def _judged(model: str, outcome: str, found: Plain) -> str:
    """Return a table of who predicted an outcome how well."""
    heads = [outcome, "AUC", "user AUC", "log loss", "ECE"]
    others = ("user_auc", "log_loss", "ece")
    rows = [
        (name, [with_error(found["auc"][name]), *(number(found[m][name]) for m in others)])
        for name in found["user_auc"]
    ]
    return table(heads, rows, model)


def _click_charts(report: Plain, outcome: str, calibration: Plain) -> str:
    """Return an outcome's AUC by window and its reliability diagram, a curve for each model."""
    curves = {
        name: list(zip(bins["predicted"], bins["observed"], strict=True))
        for name, bins in calibration.items()
    }
    by_window = {
        name: [
            (window["window"], window["clicks"][outcome]["auc"][name])
            for window in report.get("windows", ())
            if outcome in window.get("clicks", {})
        ]
        for name in curves
    }
    auc = lines(f"{outcome}: AUC", "window", by_window)
    observed = reliability(f"{outcome}: observed rate", curves)
    return f'<div class="charts">{auc}{observed}</div>'


def _twins(report: Plain) -> Iterable[str]:
    """Yield a section for the single-task twins, if any were asked."""
    for name, twin in report.get("twins", {}).items():
        metrics, outcomes = list(twin["above"]), list(twin["clicks"])
        rows = [
            (
                ranker,
                [with_error(found[metric]) for metric in metrics]
                + [with_error(twin["clicks"][outcome]["auc"][ranker]) for outcome in outcomes],
            )
            for ranker, found in twin["recall"].items()
        ]
        above = [with_interval(twin["above"][metric]) for metric in metrics]
        above += [
            with_interval(twin["clicks"][outcome]["auc"]["difference"]) for outcome in outcomes
        ]
        heads = ["", *metrics, *(f"{escape(outcome)}: AUC" for outcome in outcomes)]
        yield (
            f"<h2>Two tasks beside {escape(name)}, on the same questions</h2>"
            + table(heads, [*rows, ("difference", above)], report["model"])
        )


def provenance(report: Plain) -> str:
    """Return what the report was made from."""
    names = ("commit", "seed", "machine", "duration_s", "stages_s", "options", "data", "config")
    facts = {name: report[name] for name in names}
    text = msgspec.json.format(msgspec.json.encode(facts), indent=2).decode()
    return f"<h2>Made from</h2><pre>{escape(text)}</pre>"


def _series(windows: list[Plain], kind: str, metric: str) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for window in windows:
        for ranker, found in window.get(kind, {}).items():
            series.setdefault(ranker, []).append((window["window"], found[metric]))
    return series


def _losses(windows: list[Plain]) -> dict[str, list[tuple[float, float]]]:
    """Return the mean losses with which each window was learned, by name."""
    series: dict[str, list[tuple[float, float]]] = {}
    for window in windows:
        for name, loss in window.get("losses", {}).items():
            series.setdefault(name, []).append((window["window"], loss))
    return series


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
