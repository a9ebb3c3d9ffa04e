"""Compare models on the events of a log by one of several protocols; JSON and HTML in --out.

python -m jobs.evaluate --log sqlite:///var/log.db --protocol global-time --out var/evaluation
python -m jobs.evaluate --protocol leave-one-out --models hybrid,sasrec --seeds 0,1,2 --passes 5
ray job submit --working-dir . -- python -m jobs.evaluate --set log=kafka://broker:9092 --out /out

In a Ray job (RAY_ADDRESS is set) it runs as one task of the cluster; the job's driver writes.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from jobs.arguments import make_parser, show
from jobs.cluster import run_as_task
from ray_rec.config import load_config
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.asking.stretch import moment_ms
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.options import EvaluateOptions, Protocol, quick_models, seeds_of
from ray_rec.evaluation.rankers.models import MODELS
from ray_rec.evaluation.reports.evaluation import write_evaluation


def main() -> int:
    """Run the evaluation and print its headline as one line of JSON."""
    given = _arguments()
    overrides = [*given.set, *([f"log={given.log}"] if given.log else [])]
    at_ms = moment_ms(given.split_at) if given.split_at else None
    models = tuple(given.models.split(",")) if given.models else quick_models(given.protocol)
    options = EvaluateOptions(
        protocol=given.protocol,
        models=models,
        seeds=seeds_of(given.seeds),
        references=tuple(given.references.split(",")) if given.references else (),
        repeats=given.repeats,
        passes=given.passes,
        twins=given.twins,
        max_queries=given.max_queries,
        select=tuple(given.select.split(",")) if given.select else (),
        importance=given.importance,
        clip=given.clip,
        start=given.start,
        end=given.end,
        time=TimeOptions(given.quantile, given.last_only, given.same_time, at_ms),
    )
    report = run_as_task(
        evaluate, load_config(given.config, overrides), options, progress=_progress
    )
    show(write_evaluation(report, given.out))
    return 0


def _arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--log", help="URL of the log, instead of the configuration's")
    parser.add_argument("--out", type=Path, default=Path("var/evaluation"), help="folder to write")
    parser.add_argument("--protocol", choices=get_args(Protocol), default="global-time")
    parser.add_argument("--models", help=f"out of {', '.join(MODELS)}; else quick ones")
    parser.add_argument("--seeds", help="by comma: of models that draw at random")
    parser.add_argument("--references", help="models that others are set against")
    parser.add_argument("--repeats", action="store_true", help="items may be recommended again")
    parser.add_argument("--same-time", action="store_true", help="equal times are in an order")
    parser.add_argument("--last-only", action="store_true", help="one question a user")
    parser.add_argument("--quantile", type=float, default=0.9, help="share of time learned")
    parser.add_argument("--split-at", metavar="TIME", help="first moment that is not learned")
    parser.add_argument("--passes", type=int, default=1, help="how often the hybrid learns the log")
    parser.add_argument("--twins", action="store_true", help="prequential: single-task twins too")
    parser.add_argument("--max-queries", type=int, default=0, help="questions asked (0: all)")
    parser.add_argument("--select", help="features of click models, by comma; else all")
    parser.add_argument("--importance", action="store_true", help="what AUC each feature gives")
    parser.add_argument("--clip", type=float, help="off-policy: no weight counts for more")
    parser.add_argument("--from", dest="start", metavar="PLACE", help="where to begin")
    parser.add_argument("--until", dest="end", metavar="PLACE", help="where to end")
    return parser.parse_args()


def _progress(what: str, done: int, total: int) -> None:
    if done == total:
        sys.stderr.write(f"{what}: {total:,}\n")


if __name__ == "__main__":
    sys.exit(main())
