"""Replay a stretch of the log: test, then train, beside the baselines; JSON and HTML in --out.

python -m jobs.backtest --log sqlite:///var/log.db --out var/backtest
python -m jobs.backtest --config run.toml --from 2017-12-01 --until 2018-01-01 --out var/backtest
ray job submit --working-dir . -- python -m jobs.backtest --set log=kafka://broker:9092 --out /out

A place is a time (ISO 8601 in UTC, or ms) or offsets: '{"events": {"0": 1200, "1": 1180}}'.
In a Ray job (RAY_ADDRESS is set) it runs as one task of the cluster; the job's driver writes.
"""

import argparse
import sys
from pathlib import Path

from jobs.arguments import make_parser, show
from jobs.cluster import run_as_task
from ray_rec.config import load_config
from ray_rec.evaluation.backtest import Options, backtest
from ray_rec.evaluation.reports.report import write_report


def main() -> int:
    """Run the backtest and print its headline as one line of JSON."""
    given = _arguments()
    overrides = [*given.set, *([f"log={given.log}"] if given.log else [])]
    options = Options(
        given.start, given.end, given.warmup_windows, given.max_queries, twins=given.twins
    )
    config = load_config(given.config, overrides)
    report = run_as_task(backtest, config, options, progress=_progress)
    show(write_report(report, given.out))
    return 0


def _arguments() -> argparse.Namespace:
    parser, default = make_parser(__doc__), Options()
    parser.add_argument("--log", help="URL of the log, instead of the configuration's")
    parser.add_argument("--out", type=Path, default=Path("var/backtest"), help="folder to write to")
    parser.add_argument("--from", dest="start", metavar="PLACE", help="where to begin")
    parser.add_argument("--until", dest="end", metavar="PLACE", help="where to end")
    parser.add_argument(
        "--warmup-windows",
        type=int,
        default=default.warmup_windows,
        help="windows with behaviour that are learned before the first is tested",
    )
    parser.add_argument(
        "--max-queries",
        type=int,
        default=default.max_queries,
        help="queries, and exposures, tested in a window (0: all)",
    )
    parser.add_argument(
        "--twins", action="store_true", help="learn and ask the two single-task twins beside it"
    )
    return parser.parse_args()


def _progress(done: int, total: int, losses: dict[str, float]) -> None:
    told = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
    sys.stderr.write(f"{done:,} of {total:,} records  {told}\n")


if __name__ == "__main__":
    sys.exit(main())
