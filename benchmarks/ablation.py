"""What each part of the hybrid is worth: without text, ids or company, as ablation.toml says.

    python -m benchmarks.ablation --data DIR [--only NAME ...] [--earlier] [--write]

Rows learn and are asked the same, a split of Amazon Beauty by time; a last table tells what held
out items and warm ones come to. `--earlier` asks for the stretch of time before the test, on which
what is not yet decided is chosen, and writes no page.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._ablation import Row, answer
from benchmarks._asked import arguments, kept_answers
from benchmarks._results import ROOT, finish, put_tables
from benchmarks._tables import beside, interval, with_error
from benchmarks.quality import configure, fill, key_of
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.metrics.paired import Paired, compare
from ray_rec.evaluation.reports.trials import described
from ray_rec.features.arrays import AnyArray
from ray_rec.log.base import open_log

FOLDER = ROOT / "var" / "ablation"
WHOLE, CUTOFF = "whole", 10
GONE, LIVE = "seen by nobody", "live"

Plain = dict[str, Any]
Kept = tuple[Ranked, Plain, dict[str, AnyArray]]


def main() -> int:
    """Measure what is missing, then write the page."""
    given = arguments(__doc__)
    plan = tomllib.loads((ROOT / "benchmarks" / "ablation.toml").read_text())
    told = {name: plan.pop(name) for name in ("about", "held")}
    rows = plan.pop("row")
    folder = FOLDER / ("earlier" if given.earlier else "test")
    if given.data is None and not given.write:
        sys.stderr.write(f"ablation: needs --data DIR with {plan['data']}; left out\n")
        return 0
    if not given.write:
        some = [row for row in rows if not given.only or row["name"] in given.only]
        _measure(plan, some, folder, given)
    paths = {row["name"]: folder / f"{row['name']}.npz" for row in rows}
    found = {name: kept_answers(path) for name, path in paths.items() if path.exists()}
    if WHOLE not in found:
        raise SystemExit(f"{WHOLE} is not measured yet, which the others are set against")
    result = told | _report(found)
    if given.earlier:
        print("\n".join(_page(result)))
        return 0
    finish("ablation", result, {"plan": plan, "rows": rows})
    put_tables("ablation", _page(result))
    return 0


def _measure(plan: Plain, rows: list[Plain], folder: Path, given: argparse.Namespace) -> None:
    """Measure the rows, but for those of this code and configuration."""
    config = configure(plan)
    fill(plan, config, given.data)
    with open_log(config.log) as log:
        logged = read_log(log, config)
    for told in rows:
        whole, kept = plan | told, folder / f"{told['name']}.npz"
        config = configure(whole)
        key = key_of(whole, config)
        if kept.exists() and kept_answers(kept)[1]["key"] == key:
            continue
        sys.stderr.write(f"{told['name']}\n")
        own = {name: value for name, value in told.items() if name != "set"}
        answer(Row(**own, config=config), logged, plan["passes"], given.earlier, key, kept)


def _report(found: Mapping[str, Kept]) -> Plain:
    """Return what rows come to, each beside the whole, and held out items, as JSON types."""
    plain = {name: kept for name, kept in found.items() if not kept[2]["held"].any()}
    places = reduce(np.intersect1d, [kept[2]["place"] for kept in plain.values()])
    asked = {name: _at(kept, places) for name, kept in plain.items()}
    ranks = {name: answers.ranks[name] for name, answers in asked.items()}
    out = described([replace(asked[WHOLE], ranks=ranks)], [WHOLE], CUTOFF, 0)
    return {"questions": len(places), "hybrid": out, "beside": _held(found)}


def _at(kept: Kept, places: AnyArray) -> Ranked:
    """Return the answers for targets at these places, in their order; a question has one."""
    answers, _, own = kept
    rows = np.intersect1d(own["place"], places, return_indices=True)[1]
    ranks = {name: values[rows] for name, values in answers.ranks.items()}
    seen, user = answers.seen[rows], answers.user[rows]
    return Ranked(answers.window[rows], user, np.arange(len(rows)), seen, seen, ranks)


def _held(found: Mapping[str, Kept]) -> Plain:
    """Return held items beside text-kNN, and warm ones beside a model that learned everything."""
    out: Plain = {}
    for way in (GONE, LIVE):
        name, knn = f"held, {way}", f"text-knn, {way}"
        if name not in found or knn not in found:
            continue
        asked, own = found[name][0], found[name][2]
        held, taken = own["held"], own["collected"] > 0
        if way == GONE:
            out[f"held, {way}"] = _beside(found, name, knn, held)
        else:
            out[f"held, {way}, not taken yet"] = _beside(found, name, knn, held & ~taken)
            out[f"held, {way}, taken since"] = _beside(found, name, knn, held & taken)
        out[f"warm, {way}"] = _beside(found, name, WHOLE, ~held)
        out[f"warm and learned, {way}"] = _beside(found, name, WHOLE, ~held & (asked.seen > 0))
    return out


def _beside(found: Mapping[str, Kept], first: str, second: str, some: AnyArray) -> Plain:
    """Return HR of two rows on those of the first's targets [T] that both were asked for."""
    places = np.intersect1d(found[first][2]["place"][some], found[second][2]["place"])
    both = [_at(found[name], places) for name in (first, second)]
    ones, others = (
        asked.ranks[name] <= CUTOFF for name, asked in zip((first, second), both, strict=True)
    )
    pair = Paired(both[0].user, ones.astype(np.float64), others.astype(np.float64))
    compared = compare([pair], least=1)
    told = {name: getattr(compared, name)._asdict() for name in _ESTIMATES}
    return {"rows": [first, second], "targets": len(places), "users": compared.users, **told}


_ESTIMATES = ("first", "second", "difference", "ratio")


def _page(result: Plain) -> Iterator[str]:
    yield "## Amazon Beauty, the hybrid without its parts\n"
    yield f"{result['about'].strip()}\n"
    yield f"{result['questions']:,} questions:\n"
    yield from beside(result["hybrid"], WHOLE)
    if result["beside"]:
        yield f"\n{result['held'].strip()}\n"
        yield "| targets | | HR@10 | beside | its HR@10 | difference, 95 % | ratio, 95 % |"
        yield "| --- |" + " --- |" * 6
    for name, told in result["beside"].items():
        one, other = with_error(told["first"]), with_error(told["second"])
        more, times = interval(told["difference"]), interval(told["ratio"], "")
        yield (
            f"| {name} | {told['targets']:,} | {one} | {told['rows'][1]} | {other} "
            f"| {more} | {times} |"
        )
    yield ""


if __name__ == "__main__":
    sys.exit(main())
