"""How good the recommendations are: the evaluations of quality.toml, and docs/results.md from them.

    python -m benchmarks.quality --data DIR [--only NAME ...] [--again] [--write]

`--data` holds the sets that are no package (amazon14_beauty). A row that was measured with this
code and configuration is not measured again; `--write` only writes the tables anew. Logs, pages and
whole reports are left in var/quality, the numbers in benchmarks/results/quality.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks._results import RESULTS, ROOT, put_tables
from ray_rec.config import RunConfig, load_config
from ray_rec.datasets import complete_journey
from ray_rec.datasets.tables import import_tables
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.asking.stretch import moment_ms
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.options import EvaluateOptions
from ray_rec.evaluation.reports.evaluation import write_evaluation
from ray_rec.evaluation.reports.summary import BASELINE
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import create_standard_topics, open_log

ROWS = ROOT / "benchmarks" / "quality.toml"
FOLDER, KEPT = ROOT / "var" / "quality", RESULTS / "quality"
_SAID = ("hr@10", "ndcg@10", "recall@10", "mrr")

Row = dict[str, Any]


def main() -> int:
    """Measure what is missing, then write the page."""
    given = _arguments()
    rows = tomllib.loads(ROWS.read_text())["row"]
    for row in rows if not given.write else ():
        if not given.only or row["name"] in given.only:
            _measure(row, given.data, given.again)
    found = [(row, json.loads(path.read_text())) for row in rows if (path := _kept(row)).exists()]
    put_tables("quality", _page(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the sets that are no package")
    parser.add_argument("--only", nargs="*", default=(), help="names of rows")
    parser.add_argument("--again", action="store_true", help="measure what was measured too")
    parser.add_argument("--write", action="store_true", help="only write docs/results.md")
    return parser.parse_args()


def _measure(row: Row, data: Path | None, again: bool) -> None:
    config = configure(row)
    key = key_of(row, config)
    if not again and _kept(row).exists() and json.loads(_kept(row).read_text())["key"] == key:
        return
    if "data" in row and data is None:
        sys.stderr.write(f"{row['name']}: needs --data DIR with {row['data']}; left out\n")
        return
    fill(row, config, data)
    report = evaluate(config, _options(row), lambda name, done, all_: _tell(row, name, done, all_))
    write_evaluation(report, FOLDER / row["name"])
    kept = {name: report[name] for name in report if name not in ("config", "options", "data")}
    KEPT.mkdir(parents=True, exist_ok=True)
    _kept(row).write_text(json.dumps({"key": key, **kept}, indent=1) + "\n")


def configure(row: Row) -> RunConfig:
    """Return the configuration of a row: its file, then what it sets, on the log of its data."""
    path = ROOT / "benchmarks" / row["config"] if "config" in row else None
    log = FOLDER / f"{row.get('data', 'complete_journey')}.db"
    places = [f"log=sqlite:///{log}", f"state_dir={FOLDER / 'state'}"]
    usual = [] if path else list(complete_journey.OVERRIDES)
    return load_config(path, [*usual, *places, *row.get("set", ())])


def key_of(row: Row, config: RunConfig) -> str:
    """Return a digest of all that the numbers follow from: the code, the row, the configuration."""
    tree = ["git", "-C", str(ROOT), "rev-parse", "HEAD:ray_rec"]
    code = subprocess.run(tree, capture_output=True, text=True, check=True).stdout.strip()
    plain = {k: v for k, v in config.to_dict().items() if k not in ("log", "registry", "state_dir")}
    return sha256(json.dumps([code, row, plain], sort_keys=True).encode()).hexdigest()[:16]


def fill(row: Row, config: RunConfig, data: Path | None) -> None:
    """Bring the row's data to its log, unless they are there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open_log(config.log) as log:
        create_standard_topics(log, config.partitions)
        if any(log.latest(EVENTS).values()):
            return
        if data is not None and "data" in row:
            folder = data / row["data"]
            import_tables(log, folder / "events.parquet", folder / "items.parquet")
        else:
            complete_journey.load(log, weeks=tuple(row["weeks"]))


def _options(row: Row) -> EvaluateOptions:
    at_ms = moment_ms(row["split_at"]) if "split_at" in row else None
    return EvaluateOptions(
        protocol=row["protocol"],
        models=tuple(row["models"]),
        seeds=tuple(row.get("seeds", ())),
        references=tuple(row.get("references", ())),
        passes=row.get("passes", 1),
        max_queries=row.get("max_queries", 0),
        time=TimeOptions(same_time=row.get("same_time", False), at_ms=at_ms),
    )


def _tell(row: Row, name: str, done: int, total: int) -> None:
    if done == total:
        sys.stderr.write(f"{row['name']}: {name}\n")


def _kept(row: Row) -> Path:
    return KEPT / f"{row['name']}.json"


def _page(found: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    if not found:
        yield "No row has been measured yet.\n"
    for row, report in found:
        yield f"## {row['title']}\n"
        yield (
            f"`python -m benchmarks.quality --data DIR --only {row['name']}`, commit "
            f"{report['commit'][:12]}, seeds {', '.join(map(str, report['seeds']))}, "
            f"{report['queries']:,} questions of {report['users']:,} users among "
            f"{report['items']:,} items, {report['duration_s']:,.0f} s.\n"
        )
        yield from _clicks(report) if report.get("clicks") else _table(report)
        if "new_to_user" in report:
            yield "\nOf these, items new to the user:\n"
            yield from _table(report["new_to_user"])
        yield ""


def _table(report: Row) -> Iterator[str]:
    """Yield a table: each metric with its standard error, then HR@10 by times learned.

    Below it stands by how much the first model is above what it was to be compared with.
    """
    metrics = [m for m in _SAID if m in next(iter(report["recall"].values()))]
    buckets = report["by_times_seen"]
    yield "| model | " + " | ".join([*metrics, *(f"hr, learned {name}" for name in buckets)]) + " |"
    yield "| --- |" + " --- |" * (len(metrics) + len(buckets))
    for model, values in report["recall"].items():
        cells = [f"{values[m]['value']:.4f} ± {values[m]['error']:.4f}" for m in metrics]
        cells += [_share(found, model) for found in buckets.values()]
        yield f"| {model} | " + " | ".join(cells) + " |"
    first = next(iter(report["recall"]))
    for reference in report["references"]:
        if reference not in (BASELINE, first):
            over = report[f"above_{reference}"][first]
            told = ", ".join(f"{metric} {_interval(over[metric])}" for metric in metrics)
            yield f"\n`{first}` above `{reference}`, 95 % over users: {told}."


def _clicks(report: Row) -> Iterator[str]:
    """Yield a table of click models for each outcome; the others are set below the first."""
    for outcome, found in report["clicks"].items():
        yield f"{found['rows']:,} shown items, {found['rare']['rows']:,} of them shown fewer than"
        yield f"20 times before; `{outcome}`.\n"
        yield "| model | AUC | the first's above it, 95 % | per user | rare | log loss | ECE |"
        yield "| --- |" + " --- |" * 6
        above = found["above"] | {"item-prior": found["auc"]["difference"]}
        for model, loss in found["log_loss"].items():
            auc, over = found["auc"][model], above.get(model)
            interval = "" if over is None else _interval(over)
            yield (
                f"| {model} | {auc['value']:.4f} ± {auc['error']:.4f} "
                f"| {interval} "
                f"| {found['user_auc'][model]:.4f} | {found['rare']['auc'][model]:.4f} "
                f"| {loss:.4f} | {found['ece'][model]:.4f} |"
            )


def _interval(over: Row) -> str:
    return f"{over['value']:+.4f} [{over['low']:+.4f}, {over['high']:+.4f}]"


def _share(bucket: Row, model: str) -> str:
    return f"{bucket['hr'][model]['value']:.3f}" if "hr" in bucket else ""


if __name__ == "__main__":
    sys.exit(main())
