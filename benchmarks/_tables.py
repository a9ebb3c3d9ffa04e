"""The tables of docs/results.md out of what evaluations report."""

from collections.abc import Iterator, Sequence
from typing import Any

from ray_rec.evaluation.reports.summary import BASELINE, PRIOR

_SAID, _BRIEF = ("hr@10", "ndcg@10", "recall@10", "mrr"), ("hr@10", "ndcg@10")

Plain = dict[str, Any]


def sections(found: Sequence[tuple[Plain, Plain]]) -> Iterator[str]:
    """Yield a section for each row of quality.toml and its report."""
    if not found:
        yield "No row has been measured yet.\n"
    for row, report in found:
        yield f"## {row['title']}\n"
        yield (
            f"`python -m benchmarks.quality --data DIR --only {row['name']}`, commit "
            f"{report['commit']}, seeds {', '.join(map(str, report['seeds']))}, "
            f"{_asked(row, report)}, {report['duration_s']:,.0f} s.\n"
        )
        if _ranks(row, report):
            yield from _models(report)
            yield from _newcomers(report) if row["protocol"] == "prequential" else ()
            yield from ("",) if report.get("clicks") else ()
        for outcome, clicks in report.get("clicks", {}).items():
            yield from _clicks(outcome, clicks)
        yield from _twins(report)
        if "new_to_user" in report:
            yield "\nOf these, items new to the user:\n"
            yield from _models(report["new_to_user"])
        yield ""


def _ranks(row: Plain, report: Plain) -> bool:
    """Whether rankings were the question, rather than clicks, beside which popularity is asked."""
    return row["protocol"] == "prequential" or not report.get("clicks")


def _asked(row: Plain, report: Plain) -> str:
    among = f" among {report['items']:,} items" if "items" in report else ""
    if not _ranks(row, report):
        shown = max(found["rows"] for found in report["clicks"].values())
        return f"the clicks on {shown:,} shown items{among}"
    among = f" in {report['tested_windows']} windows" if "tested_windows" in report else among
    return f"{report['queries']:,} questions of {report['users']:,} users{among}"


def _models(report: Plain) -> Iterator[str]:
    """Yield a table: each metric with its standard error, then what is found by times learned.

    Below it stands by how much the first model is above what it was to be compared with.
    """
    metrics = [m for m in _SAID if m in next(iter(report["recall"].values()))]
    buckets = report["by_times_seen"]
    yield _heads(["model", *metrics, *(f"found, learned {name}" for name in buckets)])
    for model, values in report["recall"].items():
        cells = [with_error(values[m]) for m in metrics]
        cells += [_share(found, model) for found in buckets.values()]
        yield f"| {model} | " + " | ".join(cells) + " |"
    first = next(iter(report["recall"]))
    for reference in report.get("references", ()):
        if reference not in (BASELINE, first):
            over = report[f"above_{reference}"][first]
            told = ", ".join(f"{metric} {interval(over[metric])}" for metric in metrics)
            yield f"\n`{first}` above `{reference}`, 95 % over users: {told}."


def _newcomers(report: Plain) -> Iterator[str]:
    """Yield a table of HR@10 by how much the user had done when asked."""
    found = report["by_past"]
    yield "\nHR@10 by how many events of the user the replay had seen (questions):\n"
    yield _heads(["model", *(f"{name} ({part['queries']:,})" for name, part in found.items())])
    for model in report["recall"]:
        cells = [
            with_error(part["recall"][model]["hr@10"]) if "recall" in part else ""
            for part in found.values()
        ]
        yield f"| {model} | " + " | ".join(cells) + " |"


def _twins(report: Plain) -> Iterator[str]:
    """Yield by how much the model of two tasks is above each that learned one alone."""
    for name, twin in report.get("twins", {}).items():
        parts = {m: value for m, value in twin["above"].items() if m in _SAID}
        parts |= {f"AUC of `{o}`": c["auc"]["difference"] for o, c in twin["clicks"].items()}
        told = ", ".join(f"{part} {interval(value)}" for part, value in parts.items())
        yield f"\n`{report['model']}` above its twin `{name}`, 95 % over users: {told}."


def _clicks(outcome: str, found: Plain) -> Iterator[str]:
    """Yield a table of click models for an outcome; the others are set below the first."""
    few = found.get("rare")
    above = {**found.get("above", {}), PRIOR: found["auc"]["difference"]}
    told = f", {few['rows']:,} of them shown fewer than 20 times before" if few else ""
    yield f"{found['rows']:,} shown items{told}; `{outcome}`.\n"
    first = next(iter(found["log_loss"]))
    heads = ["model", "AUC", f"{first} above it, 95 %", "per user", "log loss", "ECE"]
    yield _heads([*heads, *(["AUC, rare"] if few else [])])
    for model, loss in found["log_loss"].items():
        over = interval(above[model]) if model in above else ""
        cells = [with_error(found["auc"][model]), over, f"{found['user_auc'][model]:.4f}"]
        cells += [f"{loss:.4f}", f"{found['ece'][model]:.4f}"]
        cells += [f"{few['auc'][model]:.4f}"] if few else []
        yield f"| {model} | " + " | ".join(cells) + " |"


def beside(report: Plain, reference: str) -> Iterator[str]:
    """Yield a table of rows: metrics, what is above the reference, and found by times learned."""
    buckets, above = report["by_times_seen"], report[f"above_{reference}"]
    more = [f"HR@10 above {reference}, 95 %", "NDCG@10 above, 95 %"]
    learned = [f"found, learned {name}" for name in buckets]
    yield _heads(["row", "HR@10", "NDCG@10", *more, *learned])
    for name, values in report["recall"].items():
        cells = [with_error(values[metric]) for metric in _BRIEF]
        cells += [interval(above[name][m]) if name in above else "" for m in _BRIEF]
        cells += [_share(bucket, name) for bucket in buckets.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _heads(heads: Sequence[str]) -> str:
    return "| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads)


def with_error(found: Plain) -> str:
    """Return an estimate with its standard error, as a cell."""
    return f"{found['value']:.4f} ± {found['error']:.4f}"


def interval(found: Plain, sign: str = "+") -> str:
    """Return an estimate with its 95 % interval, as a cell."""
    value, low, high = (f"{found[name]:{sign}.4f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _share(bucket: Plain, model: str) -> str:
    return f"{bucket['hr'][model]['value']:.3f}" if "hr" in bucket else ""
