"""Replay a stretch of the log through the code that runs live, and report beside the baselines."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ray_rec.config import RunConfig
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.stretch import ends, starts
from ray_rec.evaluation.prequential import MODEL, Options, Prequential
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.reports.provenance import commit, data_digest, machine
from ray_rec.evaluation.reports.report import write_report
from ray_rec.evaluation.reports.summary import beside_twins, summarise
from ray_rec.events.decode import decode
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS, LOG_SCHEMA
from ray_rec.log.base import EventLog, check_topics, open_log
from ray_rec.log.cut import cut
from ray_rec.log.window import Window

__all__ = ["TOPICS", "Options", "backtest", "run_backtest"]

TOPICS = (ITEMS, EVENTS, EXPOSURES, CONTROLS)

Progress = Callable[[int, int, dict[str, float]], None]
"""Told (records done, records in all, metrics of the window) after each window."""


def backtest(
    config: RunConfig,
    options: Options | None = None,
    progress: Progress | None = None,
    rankers: Sequence[Ranker] | None = None,
) -> dict[str, Any]:
    """Run windows of `training.window_records` from start to end; return the report as JSON types.

    Args:
        config: of the run.
        options: which stretch, and how much of it is tested.
        progress: told after each window.
        rankers: what stands beside the model, popularity among them; the default baselines if None.

    Raises:
        LogError: the log does not answer, or lacks topics.
        ConfigError: an option or place on the log is wrong.
        DataError: the stretch holds nothing that could be tested.
    """
    options, began = options or Options(), time.perf_counter()
    torch.set_num_threads(config.training.torch_threads)
    with open_log(config.log) as log:
        check_topics(log)
        run = Prequential(config, options, rankers)
        data = _replay(log, run, config.training.window_records, options, progress)
    if not run.ledger.has_ranks:
        raise DataError(
            f"nothing to test: {data['counts'][EVENTS]} events in the stretch; "
            "take a longer one, a smaller training.window_records or fewer warm-up windows"
        )
    with run.clock.stage("summary"):
        report = summarise(run.ledger, run.windows, MODEL, options.cutoff, config)
        if options.twins:
            ledgers = {name: twin.ledger for name, twin in run.beside.items()}
            report["twins"] = beside_twins(run.ledger, ledgers, MODEL, options.cutoff, config)
    return report | {
        "options": asdict(options),
        "config": config.to_dict(),
        "seed": config.learner.seed,
        "data": data,
        "commit": commit(),
        "machine": machine(),
        "duration_s": round(time.perf_counter() - began, 2),
        "stages_s": {name: round(spent, 2) for name, spent in run.clock.spent.items()},
    }


def _replay(
    log: EventLog, run: Prequential, records: int, options: Options, progress: Progress | None
) -> dict[str, Any]:
    """Take `run` through the stretch; return which one it was, with its counts."""
    start, end = starts(log, TOPICS, options.start), ends(log, TOPICS, options.end)
    total = sum(max(0, end[t][p] - start[t][p]) for t in TOPICS for p in end[t])
    counts, done = dict.fromkeys((*TOPICS, "dead"), 0), 0
    for window in cut(log, TOPICS, records, start, end):
        with run.clock.stage("read"):
            tables = read_window(log, window, counts)
        run.step(window, tables)
        done += window.num_records
        if progress is not None:
            progress(done, total, run.windows[-1]["losses"])
    return data_digest(start, end, counts)


def run_backtest(
    config: RunConfig,
    output: str | Path,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a backtest, write backtest.json and backtest.html into `output`; return the headline."""
    return write_report(backtest(config, options, progress), Path(output))


def read_window(log: EventLog, window: Window, counts: dict[str, int]) -> dict[str, pa.Table]:
    """Return the window's decoded records by topic, and count them."""
    tables = {}
    for topic in TOPICS:
        decoded = [decode(topic, raw) for raw in log.read(topic, window.ranges[topic])]
        counts[topic] += sum(part.table.num_rows for part in decoded)
        counts["dead"] += sum(part.dead.num_rows for part in decoded)
        empty = decode(topic, LOG_SCHEMA.empty_table()).table
        tables[topic] = pa.concat_tables([empty, *(part.table for part in decoded)])
    return tables
