"""What each fine-tuning policy of the encoder is worth and costs, as policies.toml says.

    python -m benchmarks.policies --data DIR [--only NAME ...] [--earlier] [--write]

A model with a frozen encoder learns all before the test; from what it knows each row goes on for
one more pass. Each row has a process of its own, so that its peak of memory is its own. `--earlier`
asks for the stretch of time before the test, on which rates are chosen, and writes no page.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from multiprocessing import get_context

from benchmarks._asked import arguments
from benchmarks._policy import KNN, MODEL, Task, measure, read
from benchmarks._results import ROOT, finish, put_tables
from benchmarks._tables import beside
from benchmarks.quality import Row, configure, fill, key_of
from ray_rec.evaluation.reports.trials import described

FOLDER = ROOT / "var" / "policies"
BEFORE, REFERENCE = "before", "frozen"


def main() -> int:
    """Measure what is missing, each row in its own process, then write the page."""
    given = arguments(__doc__)
    plan = tomllib.loads((ROOT / "benchmarks" / "policies.toml").read_text())
    about, rows = plan.pop("about"), [{"name": BEFORE}, *plan.pop("row")]
    if given.data is None and not given.write:
        sys.stderr.write(f"policies: needs --data DIR with {plan['data']}; left out\n")
        return 0
    for row in rows if not given.write else ():
        if not given.only or row["name"] in given.only:
            fill(plan, configure(plan), given.data)
            _measured(_task(plan, row, given))
    tasks = [_task(plan, row, given) for row in rows]
    result = _report(about, [task for task in tasks if task.kept.exists()])
    if given.earlier:
        print("\n".join(_page(result)))
        return 0
    finish("policies", result, {"plan": plan, "rows": rows})
    put_tables("policies", _page(result))
    return 0


def _task(plan: Row, row: Row, given: argparse.Namespace) -> Task:
    """Return what a row's process is told."""
    place = FOLDER / ("earlier" if given.earlier else "test")
    common = [] if row["name"] == BEFORE else plan["set"]
    whole = {**plan, **row, "set": [*common, *row.get("set", ())]}
    config = configure(whole)
    start = None if row["name"] == BEFORE else place / f"{BEFORE}.pt"
    return Task(
        name=row["name"],
        config=config,
        passes=plan["passes"] if start is None else 1,
        start=start,
        adaptation=row.get("adapt"),
        questions=plan["questions"],
        earlier=given.earlier,
        key=key_of(whole, config),
        kept=place / f"{row['name']}.npz",
    )


def _measured(task: Task) -> None:
    """Measure a row in a process of its own, unless its file is of this code and configuration."""
    if task.kept.exists() and read(task.kept)[2] == task.key:
        return
    task.kept.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"{task.name}\n")
    process = get_context("spawn").Process(target=measure, args=(task,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{task.name} failed with exit code {process.exitcode}")


def _report(about: str, tasks: Sequence[Task]) -> Row:
    """Return what rows come to, each beside the frozen one, as JSON types."""
    found = {task.name: read(task.kept) for task in tasks}
    if REFERENCE not in found:
        raise SystemExit(f"{REFERENCE} is not measured yet, which the others are set against")
    out: Row = {
        "about": about,
        "costs": {name: asdict(figures) for name, (_, figures, _) in found.items()},
    }
    for model in (MODEL, KNN):
        ranks = {name: answers.ranks[model] for name, (answers, _, _) in found.items()}
        out[model] = described([replace(found[REFERENCE][0], ranks=ranks)], [REFERENCE], 10, 0)
    return out


def _page(result: Row) -> Iterator[str]:
    yield "## Amazon Beauty, what of the encoder learns\n"
    yield f"{result['about']}\n"
    yield "| row | trained | texts | learning, s | peak, MB | held, MB |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, cost in result["costs"].items():
        yield (
            f"| {name} | {cost['trained']:,} | {cost['texts']:,} | {cost['learn_s']:.0f} | "
            f"{cost['peak_mb']:,.0f} | {cost['held_mb']:.0f} |"
        )
    for model in (MODEL, KNN):
        yield f"\n`{model}`:\n"
        yield from beside(result[model], REFERENCE)
    yield ""


if __name__ == "__main__":
    sys.exit(main())
