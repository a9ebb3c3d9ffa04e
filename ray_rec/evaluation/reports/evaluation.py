"""An evaluation's report as files: evaluation.json for programs, evaluation.html for people."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from ray_rec.evaluation.clicks.offline import RARE
from ray_rec.evaluation.reports.report import (
    Plain,
    clicks,
    comparison,
    headline,
    html,
    page,
    provenance,
    table,
    write_files,
)

_ASKED = {
    "leave-one-out": "the last event of each user with three or more; all others were learned, "
    "those of other users at later times too, as papers do",
    "global-time": "each later event of users seen before the split in time",
    "item-holdout": "each later event of users seen before the split in time; of some items, "
    "chosen by hash, nobody had seen any event (times taken: 0)",
}


def write_evaluation(report: Plain, folder: Path) -> Plain:
    """Write both files and return the headline: metrics by model and where the files are."""
    files = write_files(report, evaluation_html(report), folder / "evaluation")
    return {"protocol": report["protocol"], **headline(report), **files}


def evaluation_html(report: Plain) -> str:
    """Return the page of an evaluation; of a prequential one the page of a backtest."""
    if report["protocol"] == "prequential":
        return html(report)
    sections = [_about(report), *comparison(report), *clicks(report), *_rare(report)]
    return page("Evaluation", [*sections, provenance(report)])


def _rare(report: Plain) -> Iterable[str]:
    for outcome, found in report["clicks"].items():
        areas = ", ".join(f"{name} {area:.4f}" for name, area in found["rare"]["auc"].items())
        yield (
            f"<p>{escape(outcome)}, items shown fewer than {RARE} times before "
            f"({found['rare']['rows']:,} rows), AUC: {escape(areas)}</p>"
        )
        if "importance" in found:
            yield _importance(outcome, found["importance"])


def _importance(outcome: str, found: Plain) -> str:
    rows = [(name, [f"{drop:+.4f}"]) for name, drop in found["auc_drop"].items()]
    title = f"{outcome}: what the AUC of {found['model']} falls by when one feature is shuffled"
    return f"<h3>{escape(title)}</h3>" + table(["feature", "AUC"], rows, "")


def _about(report: Plain) -> str:
    options = report["options"]
    repeats = "may come again" if options["repeats"] else "are ranked last and never asked for"
    text = (
        f"Protocol {report['protocol']}: {report['queries']:,} questions of {report['users']:,} "
        f"users, {_ASKED[report['protocol']]}. {report['learned']:,} events were learned. Each "
        f"question is one event, ranked among all {report['items']:,} items; items that the user "
        f"took before {repeats}; equal scores count half a rank each. ± is one standard error over "
        "users; intervals are 95 %, both by bootstrap."
    )
    return f'<p class="about">{escape(text)}</p>'
