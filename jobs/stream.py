"""Learn from the log, window after window, until the job is stopped.

python -m jobs.stream --config run.toml --set training.num_workers=2
ray job submit --working-dir . -- python -m jobs.stream --set log=kafka://broker:9092
"""

import sys

from jobs.arguments import parse, show
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.stream import run_stream


def main() -> int:
    """Run the stream; SIGINT or SIGTERM finishes the window at hand and keeps it."""
    config, arguments = parse(__doc__, until_end="stop at the log's present end")
    with stop_on_signals() as stop:
        show(run_stream(config, bounded=arguments.until_end, stop=stop))
    return 0


if __name__ == "__main__":
    sys.exit(main())
