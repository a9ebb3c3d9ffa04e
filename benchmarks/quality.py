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
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks._results import RESULTS, ROOT, lasting, put_tables
from benchmarks._tables import sections
from ray_rec.config import RunConfig, load_config
from ray_rec.datasets import complete_journey
from ray_rec.datasets.tables import import_tables
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.asking.stretch import moment_ms
from ray_rec.evaluation.clicks.offline import over_seeds
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.options import EvaluateOptions
from ray_rec.evaluation.reports.evaluation import write_evaluation
from ray_rec.evaluation.reports.report import headline
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import create_standard_topics, open_log

ROWS = ROOT / "benchmarks" / "quality.toml"
FOLDER, KEPT = ROOT / "var" / "quality", RESULTS / "quality"
_CODE = ("config.py", "datasets", "evaluation", "events", "features", "log", "model", "training")
"""Of ray_rec, what an evaluation runs."""

Row = dict[str, Any]


def main() -> int:
    """Measure what is missing, then write the page."""
    given = _arguments()
    rows = tomllib.loads(ROWS.read_text())["row"]
    for row in rows if not given.write else ():
        if not given.only or row["name"] in given.only:
            _measure(row, given.data, given.again)
    found = [(row, json.loads(path.read_text())) for row in rows if (path := _kept(row)).exists()]
    put_tables("quality", sections(found))
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
    report = _replayed(row, config) if row["protocol"] == "prequential" else _evaluated(row, config)
    kept = report | {"config": lasting(report["config"])}
    KEPT.mkdir(parents=True, exist_ok=True)
    _kept(row).write_text(json.dumps({"key": key, **kept}, indent=1) + "\n")


def _evaluated(row: Row, config: RunConfig) -> Row:
    report = evaluate(config, _options(row), lambda name, done, all_: _tell(row, name, done, all_))
    write_evaluation(report, FOLDER / row["name"])
    return report


def _replayed(row: Row, config: RunConfig) -> Row:
    """Return the means of a replay under each seed, which takes one at a time."""
    seeds, reports = row["seeds"], []
    for seed in seeds:
        own = replace(config, learner=replace(config.learner, seed=seed))
        plain = {name: value for name, value in row.items() if name != "seeds"}
        reports.append(evaluate(own, _options(plain)))
        write_evaluation(reports[-1], FOLDER / row["name"] / f"seed-{seed}")
        sys.stderr.write(f"{row['name']}: seed {seed}\n")
    mean = over_seeds(reports)
    spent_s = sum(report["duration_s"] for report in reports)
    by_seed = [headline(report) for report in reports]
    return mean | {"seeds": seeds, "by_seed": by_seed, "duration_s": spent_s}


def configure(row: Row) -> RunConfig:
    """Return the configuration of a row: its file, then what it sets, on the log of its data."""
    path = ROOT / "benchmarks" / row["config"] if "config" in row else None
    log = FOLDER / f"{row.get('log') or row.get('data', 'complete_journey')}.db"
    places = [f"log=sqlite:///{log}", f"state_dir={FOLDER / 'state'}"]
    usual = [] if path else list(complete_journey.OVERRIDES)
    return load_config(path, [*usual, *places, *row.get("set", ())])


def key_of(row: Row, config: RunConfig) -> str:
    """Return a digest of what numbers follow from: committed code, the row, the configuration."""
    trees = ["git", "-C", str(ROOT), "rev-parse", *(f"HEAD:ray_rec/{part}" for part in _CODE)]
    code = subprocess.run(trees, capture_output=True, text=True, check=True).stdout
    plain = [code, row, lasting(config.to_dict())]
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


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
            told = bool(config.features.promotions)
            complete_journey.load(log, weeks=tuple(row["weeks"]), promotions=told)


def _options(row: Row) -> EvaluateOptions:
    at_ms = moment_ms(row["split_at"]) if "split_at" in row else None
    return EvaluateOptions(
        protocol=row["protocol"],
        models=tuple(row["models"]),
        seeds=tuple(row.get("seeds", ())),
        references=tuple(row.get("references", ())),
        passes=row.get("passes", 1),
        twins=row.get("twins", False),
        max_queries=row.get("max_queries", 0),
        time=TimeOptions(same_time=row.get("same_time", False), at_ms=at_ms),
    )


def _tell(row: Row, name: str, done: int, total: int) -> None:
    if done == total:
        sys.stderr.write(f"{row['name']}: {name}\n")


def _kept(row: Row) -> Path:
    return KEPT / f"{row['name']}.json"


if __name__ == "__main__":
    sys.exit(main())
