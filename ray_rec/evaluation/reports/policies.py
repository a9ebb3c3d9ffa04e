"""The page of an off-policy evaluation: what policies of the log earned, and others would have."""

from collections.abc import Iterable
from html import escape
from typing import Any

from ray_rec.evaluation.reports.html import DASH, number, page, table
from ray_rec.evaluation.reports.report import provenance

Plain = dict[str, Any]

ESTIMATORS = ("ips", "snips", "dm", "dr")

_ABOUT = (
    "Expected reward of one shown item, had another policy chosen it, with all else as it was: "
    "user, time, position, the other items. IPS and SNIPS weight each choice by how much likelier "
    "the other policy was to make it, DM asks a model of the reward, DR puts that model right by "
    "weighted residuals; the interval of DM knows nothing of how wrong its model is. Models "
    "learned what was shown before the split; values are of what came later. Intervals are 95 %, "
    "by bootstrap of users. The log does not tell what else could have been shown: a policy of one "
    "name is taken to choose among all items that it ever showed, which its propensities must bear "
    "out."
)
_HEADS = ("IPS", "SNIPS", "DM", "DR", "mean weight", "effective rows", "without support")


def policies_headline(report: Plain) -> Plain:
    """Return the values that one would quote, by outcome, logged policy and policy in its place."""
    values = {
        outcome: {
            logged: {name: _quoted(value) for name, value in found["values"].items()}
            for logged, found in by_policy.items()
        }
        for outcome, by_policy in report["policies"].items()
    }
    return {"values": values, "warnings": _warnings(report), "duration_s": report["duration_s"]}


def policies_html(report: Plain) -> str:
    """Return the page."""
    about = f'<p class="about">{escape(_ABOUT)}</p>'
    return page("Policies", [about, *_sections(report), provenance(report)])


def _sections(report: Plain) -> Iterable[str]:
    for outcome, by_policy in report["policies"].items():
        for logged, found in by_policy.items():
            yield f"<h2>{escape(outcome)}, from the log of {escape(logged)}</h2>"
            rows = [(name, _cells(value)) for name, value in found["values"].items()]
            yield table(["", *_HEADS], rows, "logged")
            yield (
                f"<p>{found['slots']:,} slots, {found['items']:,} items shown; by inverse "
                f"propensities {number(found['choosable']['value'])} "
                f"<small>±{number(found['choosable']['error'])}</small> could stand at one</p>"
            )
    if told := _warnings(report):
        yield f"<h2>Mind</h2><ul>{''.join(f'<li>{escape(text)}</li>' for text in told)}</ul>"


def _cells(value: Plain) -> list[str]:
    estimates = [_interval(value[name]) for name in ESTIMATORS]
    uncovered = DASH if value["uncovered"] is None else f"{value['uncovered']:.1%}"
    weight = number(value["mean_weight"]["value"])
    return [*estimates, weight, f"{value['effective_rows']:,.1f}", uncovered]


def _interval(estimate: Plain | None) -> str:
    if estimate is None:
        return DASH
    low, high = (number(estimate[end]) for end in ("low", "high"))
    return f"{number(estimate['value'])} <small>[{low}, {high}]</small>"


def _quoted(value: Plain) -> Plain:
    """Return value, low and high of each estimator, and how many choices they rest on."""
    found = {
        name: [round(value[name][part], 5) for part in ("value", "low", "high")]
        for name in ESTIMATORS
        if value[name] is not None
    }
    return found | {"effective_rows": round(value["effective_rows"], 1)}


def _warnings(report: Plain) -> list[str]:
    """Return what was refused and what is to be read before the numbers, each with its place."""
    told: list[str] = []
    for outcome, by_policy in report["policies"].items():
        for logged, found in by_policy.items():
            place, by_reason = f"{outcome}, {logged}", dict[str, list[str]]()
            for name, why in found["refused"].items():
                by_reason.setdefault(why, []).append(name)
            told += [f"{place}: no value of {', '.join(n)}: {w}" for w, n in by_reason.items()]
            told += [
                f"{place}: {name}: {warning}"
                for name, value in found["values"].items()
                for warning in value["warnings"]
            ]
    return told
