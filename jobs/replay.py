"""Copy a stretch of a log or an archive to a log, at a chosen speed.

python -m jobs.replay sqlite:///old.db --set log=kafka://broker:9092 --from 2017-12-01
python -m jobs.replay --topic events=events-again --offsets events:0:100-200 --speed 60
python -m jobs.replay --dead-letter
"""

import sys

from jobs.arguments import make_parser, show
from ray_rec.config import load_config
from ray_rec.log.replay_request import ReplayRequest, run_replay
from ray_rec.training.interrupt import stop_on_signals


def main() -> int:
    """Replay what the command line says into the run's log, then end."""
    parser = make_parser(__doc__)
    parser.add_argument("source", nargs="?", help="log URL or archive folder; the run's log")
    parser.add_argument("--topic", action="append", default=[], help="events, or events=other-name")
    parser.add_argument("--offsets", action="append", default=[], help="events:0:100-200")
    parser.add_argument("--from", dest="start", help="first record time, ISO 8601 or ms")
    parser.add_argument("--until", dest="end", help="record time to stop before")
    parser.add_argument("--speed", type=float, default=0.0, help="1 is the original pace")
    parser.add_argument("--dead-letter", action="store_true", help="put dead letters back")
    given = parser.parse_args()
    log = load_config(given.config, given.set).log
    request = ReplayRequest(
        source=given.source or log,
        target=log,
        topics=given.topic,
        offsets=given.offsets,
        start=given.start,
        end=given.end,
        speed=given.speed,
        dead_letter=given.dead_letter,
    )
    with stop_on_signals() as stop:
        show(run_replay(request, stop))
    return 130 if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
