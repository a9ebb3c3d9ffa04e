"""Numbers, curves and tables out of the answers that `benchmarks.continual` leaves by seed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._pupils import (
    CUTOFF,
    KEYS,
    OUTCOME,
    Plain,
    Run,
    commits,
    compared_to,
    kept_runs,
    ranked_by,
    table,
)
from benchmarks._results import RESULTS, ROOT, machine
from ray_rec.datasets.purchases import WEEK_MS, week_start_ms
from ray_rec.evaluation.metrics.ranking import auc, ranking
from ray_rec.evaluation.reports.charts import COLOURS, Points, lines
from ray_rec.evaluation.reports.summary import by_times_seen
from ray_rec.features.arrays import Int64

RESULT = RESULTS / "quality" / "continual.json"
DOCS = ROOT / "docs"
NEVER, PLAIN = "never", "every 10,000"
CADENCES = ("every 1,000", "every 10,000", "every 100,000", "never", "never, counts frozen")

_ABOUT = """
All learned weeks 33 to 44 alike, in windows of 1,000 records, with the demo's configuration. From
week 45 on `every N` learns the N newest records at a time, by the same steps as `every 1,000`, only
later. `never` keeps the network, the item vectors and how often each item was learned as they were;
histories, catalogue and popularity go on, so it too follows what is bought lately. `never, counts
frozen` keeps popularity as well. All are asked the same baskets at the same moments (at most 40 of
each window), and predict the same promoted items when they are shown, judged when the week is over.
"""
_WAYS = """
Ways to go on, each with an update every 10,000 records. `replay r` learns r rows of the 300
windows before for each new one; `elastic` is `learner.elastic`, towards the update before; `no
average` and `average .999` have another `learner.average` than .99; `refresh` draws the model anew
every 80 windows, about three weeks, and learns the newest 300. All that was tried stands here, and
nothing was chosen on these weeks:
"""


def summarise(folder: Path, first: int, end: int, plan: Plain) -> None:
    """Write numbers and curves of a folder's answers, from week `first` to before `end`."""
    kept = kept_runs(folder)
    runs = [*kept.values()]
    names = runs[0]["names"].tolist()
    ranked, weeks = ranked_by(runs, names), list(range(first, end))
    ways = [PLAIN, *(name for name in names if name not in CADENCES)]
    found = {
        "benchmark": "continual",
        "seeds": [*kept],
        "queries": len(runs[0]["user"]),
        "users": len(np.unique(runs[0]["user"])),
        "shown": len(runs[0]["shown_user"]),
        "rows": dict(zip(names, runs[0]["rows"].tolist(), strict=True)),
        "cadences": compared_to(runs, ranked, CADENCES, NEVER),
        "ways": compared_to(runs, ranked, ways, PLAIN),
        "by_times_seen": by_times_seen(ranked, CUTOFF, 0),
        "weeks": weeks,
        "by_week": {name: _by_week(runs, name, weeks) for name in names},
        "commit": commits(runs),
        "plan": plan,
        "machine": machine(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for key in KEYS:
        (DOCS / f"continual-{key.partition('@')[0]}.svg").write_text(_curve(found, key))


def _by_week(runs: Sequence[Run], name: str, weeks: Sequence[int]) -> Plain:
    """Return the means over seeds of HR@10, NDCG@10 and the click AUC by week."""
    out: dict[str, list[float | None]] = {key: [] for key in KEYS}
    for week in weeks:
        by_seed = [_of_week(run, name, week) for run in runs]
        for key, value in zip(KEYS, np.mean(by_seed, axis=0).tolist(), strict=True):
            out[key].append(value if isfinite(value) else None)
    return out


def _of_week(run: Run, name: str, week: int) -> tuple[float, float, float]:
    place = run["names"].tolist().index(name)
    made = ranking(run["ranks"][place], run["target_query"], len(run["user"]), CUTOFF)
    asked = _weeks(run, run["window"]) == week
    shown = _weeks(run, run["shown_window"]) == week + 1  # judged when the week is over
    labels, scores = run["labels"][shown, OUTCOME], run["clicks"][place, shown, OUTCOME]
    area = auc(labels, scores) if len(labels) else float("nan")
    return float(made.hit[asked].mean()), float(made.ndcg[asked].mean()), area


def _weeks(run: Run, window: Int64) -> Int64:
    """Return the week that each window [n] ends in."""
    until = dict(run["until"].tolist())
    ends = np.array([until[number] for number in window.tolist()])
    return 1 + (ends - week_start_ms(1)) // WEEK_MS


def _curve(found: Plain, key: str) -> str:
    """Return what each cadence has above never updating, week by week, as an SVG of its own."""
    never = found["by_week"][NEVER][key]
    series: dict[str, Points] = {}
    for name in CADENCES:
        values = found["by_week"][name][key]
        known = zip(found["weeks"], values, never, strict=True)
        series[name] = [(week, value - base) for week, value, base in known if value is not None]
    told = {"auc": "click AUC"}.get(key, key.upper())
    return _alone(lines(f"{told} above that of weights never updated", "week", series), series)


def _alone(figure: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the drawing of a figure with its title and key in it, to be shown without a page."""
    title, width, height, drawing = re.findall(
        r'<figcaption>(.*?)</figcaption><svg viewBox="0 0 (\S+) (\S+)"[^>]*>(.*)</svg>', figure
    )[0]
    key = "".join(
        f'<text x="{52 + 98 * at}" y="-8" fill="{colour}">{escape(name)}</text>'
        for at, (name, colour) in enumerate(zip(names, COLOURS, strict=False))
    )
    style = "text{font:11px system-ui,sans-serif}.grid{stroke:#8884}text:not([fill]){fill:#777}"
    box = f"-12 -44 {12 + int(width)} {int(height) + 44}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">'
        f'<style>{style}</style><text x="52" y="-28" font-weight="600">{title}</text>'
        f"{key}{drawing}</svg>\n"
    )


def section() -> Iterator[str]:
    """Yield the part of the results page that tells of it, if it was measured."""
    if not RESULT.exists():
        return
    found = json.loads(RESULT.read_text())
    yield "## Complete Journey, kept learning or not\n"
    yield (
        f"`python -m benchmarks.continual --seeds {' '.join(map(str, found['seeds']))}`, commit "
        f"{found['commit']}, {found['queries']:,} baskets of {found['users']:,} users in "
        f"weeks {found['weeks'][0]} to {found['weeks'][-1]}, {found['shown']:,} shown items.\n"
    )
    yield _ABOUT.strip() + "\n"
    yield from table(found["cadences"], f"above {NEVER}")
    for key, about in (("hr", "HR@10"), ("ndcg", "NDCG@10"), ("auc", "click AUC")):
        yield f"\n![{about} by week](continual-{key}.svg)"
    yield f"\n{_WAYS.strip()}\n"
    yield from table(found["ways"], f"above {PLAIN}")
    yield ""
