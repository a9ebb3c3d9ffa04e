"""An evaluation's report as files: evaluation.json for programs, evaluation.html for people."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from ray_rec.evaluation.clicks.offline import RARE
from ray_rec.evaluation.reports.comparison import comparison, learning, lists
from ray_rec.evaluation.reports.html import page, table
from ray_rec.evaluation.reports.policies import policies_headline, policies_html
from ray_rec.evaluation.reports.report import (
    Plain,
    clicks,
    headline,
    html,
    provenance,
    write_files,
)

_ASKED = {
    "leave-one-out": "the last event of each user with three or more; all others were learned, "
    "those of other users at later times too, as papers do",
    "global-time": "each later event of users seen before the split in time",
    "next-basket": "what a user takes in a week, asked at its start of each user who was seen "
    "before and has a basket in it",
    "item-holdout": "each later event of users seen before the split in time; of some items, "
    "chosen by hash, nobody had seen any event (times taken: 0)",
}


def write_evaluation(report: Plain, folder: Path) -> Plain:
    """Write both files and return the headline: metrics by model and where the files are."""
    files = write_files(report, evaluation_html(report), folder / "evaluation")
    quoted = policies_headline(report) if "policies" in report else headline(report)
    return {"protocol": report["protocol"], **quoted, **files}


def evaluation_html(report: Plain) -> str:
    """Return the page of an evaluation; that of a backtest or of policies for such a protocol."""
    if report["protocol"] == "prequential":
        return html(report)
    if "policies" in report:
        return policies_html(report)
    ranked = [*comparison(report), lists(report)]
    if "new_to_user" in report:
        ranked += comparison(report["new_to_user"], "Of what is new to them")
    sections = [_about(report), *ranked, learning(report), *clicks(report), *_rare(report)]
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
    again = options["repeats"] or report["protocol"] == "next-basket"
    repeats = "may come again" if again else "are ranked last and never asked for"
    text = (
        f"Protocol {report['protocol']}: {report['queries']:,} questions of {report['users']:,} "
        f"users, {_ASKED[report['protocol']]}. {report['learned']:,} events were learned. A "
        f"question is one event, or a week's basket, and each of its {report['targets']:,} targets "
        f"is ranked among all {report['items']:,} items; items that the user "
        f"took before {repeats}; equal scores count half a rank each. Models that draw at random "
        f"are trained with seeds {report['seeds']}, each anew, and the means are shown. ± is one "
        "standard error over users; intervals are 95 %, both by paired bootstrap of users."
    )
    return f'<p class="about">{escape(text)}</p>'
