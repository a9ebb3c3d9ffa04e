"""Learn from the log, window after window, until the job is stopped.

python -m jobs.stream --config run.toml --set training.num_workers=2
python -m jobs.stream --plans var/state/plans --set state_dir=var/again --set registry=var/again
ray job submit --working-dir . -- python -m jobs.stream --set log=kafka://broker:9092
"""

import sys

from jobs.arguments import add_on_gap, make_parser, settings, show
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.stream import run_stream


def main() -> int:
    """Run the stream; SIGINT or SIGTERM finishes the window at hand and keeps it."""
    parser = make_parser(__doc__)
    parser.add_argument("--until-end", action="store_true", help="stop at the log's present end")
    parser.add_argument(
        "--plans", help="folder of another run's plans, to be repeated to their end"
    )
    parser.add_argument(
        "--checkpoint", type=int, help="go on from the newest checkpoint up to this one"
    )
    add_on_gap(parser)
    given = parser.parse_args()
    run = {"bounded": given.until_end, "plans": given.plans, "checkpoint": given.checkpoint}
    with stop_on_signals() as stop:
        show(run_stream(settings(given), **run, stop=stop))
    return 0


if __name__ == "__main__":
    sys.exit(main())
