"""An evaluation's report as files: evaluation.json for programs, evaluation.html for people."""

from html import escape
from pathlib import Path

from ray_rec.evaluation.report import (
    Plain,
    comparison,
    html,
    page,
    provenance,
    recall_headline,
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
    told = {name: report[name] for name in ("protocol", "queries")}
    files = write_files(report, evaluation_html(report), folder / "evaluation")
    return told | {"recall": recall_headline(report), "duration_s": report["duration_s"]} | files


def evaluation_html(report: Plain) -> str:
    """Return the page of an evaluation; of a prequential one the page of a backtest."""
    if report["protocol"] == "prequential":
        return html(report)
    return page("Evaluation", [_about(report), *comparison(report), provenance(report)])


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
