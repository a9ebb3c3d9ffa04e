"""Search for the best hyper-parameters on a log; a table and plots, and best.toml, in --out.

python -m jobs.tune --space learner.lr=loguniform:1e-4:1e-2 --space model.blocks=choice:1,2
python -m jobs.tune --config run.toml --space-file space.toml --trials 50 --passes 8
python -m jobs.tune --config run.toml --space-file space.toml --resume
ray-rec train --config var/search/best.toml

Each trial learns what comes before a validation stretch of time and is judged on it; the last
--test of the events are never looked at. A dimension is KEY=uniform:LOW:HIGH, loguniform:LOW:HIGH,
int:LOW:HIGH or choice:A,B; a space file holds the same by key. In a Ray job (RAY_ADDRESS is set)
trials run all over the cluster; --out must be a folder that its nodes share.
"""

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path

from jobs.arguments import make_parser, settings, show
from ray_rec.evaluation.prequential import Clock
from ray_rec.search.objective import Objective, ObjectiveOptions
from ray_rec.search.report import report, write_search
from ray_rec.search.space import read_space
from ray_rec.search.trials import SearchOptions, run_trials
from ray_rec.training.stream import connect


def main() -> int:
    """Run the search and print its best trial as one line of JSON."""
    given = _arguments()
    config, clock = settings(given), Clock()
    space = read_space(given.space, given.space_file, config)
    judging = ObjectiveOptions(**{f.name: getattr(given, f.name) for f in fields(ObjectiveOptions)})
    options = SearchOptions(**{f.name: getattr(given, f.name) for f in fields(SearchOptions)})
    with clock.stage("read"):
        objective = Objective.read(config, judging)
    connect()
    with clock.stage("trials"), redirect_stdout(sys.stderr):  # Tune prints how far it is
        trials = run_trials(objective, space, options, given.out)
    found = report(objective, space, options, trials, clock.spent)
    show(write_search(found, trials, config, given.out))
    return 0


def _arguments() -> argparse.Namespace:
    parser, judging, options = make_parser(__doc__), ObjectiveOptions(), SearchOptions()
    parser.add_argument("--space", action="append", default=[], metavar="KEY=KIND:VALUES")
    parser.add_argument("--space-file", type=Path, help="TOML file of the same by key")
    parser.add_argument("--out", type=Path, default=Path("var/search"), help="folder to write to")
    parser.add_argument("--model", default=judging.model, help="one that `evaluate` knows")
    parser.add_argument("--passes", type=int, default=judging.passes, help="of the hybrid, at most")
    parser.add_argument("--test", type=float, default=judging.test, help="last share, left alone")
    parser.add_argument("--validation", type=float, default=judging.validation, help="share asked")
    parser.add_argument("--repeats", action="store_true", help="items may be recommended again")
    parser.add_argument("--max-queries", type=int, default=judging.max_queries, help="0: all")
    parser.add_argument("--trials", type=int, default=options.trials)
    parser.add_argument("--search", choices=("random", "optuna"), default=options.search)
    parser.add_argument("--scheduler", choices=("asha", "none"), default=options.scheduler)
    parser.add_argument("--cpus-per-trial", type=float, default=options.cpus_per_trial)
    parser.add_argument("--concurrent", type=int, default=options.concurrent, help="0: by CPUs")
    parser.add_argument("--seed", type=int, default=options.seed)
    parser.add_argument("--resume", action="store_true", help="go on with the search in --out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
