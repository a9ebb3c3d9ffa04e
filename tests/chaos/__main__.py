"""Many kills on both logs: `python -m tests.chaos --kills 100 --seed 1` (`make chaos`).

A trial is one stream that several kills disturb, compared with an undisturbed one over the same
plans. The last line is a JSON object; the same seed makes the same kills.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.chaos.kills import BROKER, KINDS, RAYS, USERS, Kill, schedule
from tests.chaos.shop import configure, fill
from tests.chaos.stage import Stage
from tests.chaos.trial import trial
from tests.conftest import load_broker

WINDOWS_PER_KILL = 3


def main() -> int:
    """Make trials until there were enough kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-trial", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", choices=("sqlite", "kafka", "both"), default="both")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves nothing running behind
    rng, made, trials, began = random.Random(arguments.seed), list[Kill](), 0, time.monotonic()
    kafka = load_broker()
    logs = ["sqlite", "kafka"] if arguments.log == "both" else [arguments.log]
    if "kafka" in logs and (lacks := kafka.missing()):
        parser.error(f"no Kafka broker can be started: {' and '.join(lacks)} missing; --log sqlite")
    while len(made) < arguments.kills:
        num_kills = min(arguments.kills_per_trial, arguments.kills - len(made))
        log = logs[trials % len(logs)]
        owners = 1 + trials // len(logs) % 2
        done = _trial(rng, num_kills, owners, kafka.Broker if log == "kafka" else None)
        made, trials = made + done, trials + 1
        _say(f"{log}: {len(done)} kills, all the same; {done}")
    summary = {
        "kills": len(made),
        "by_kind": dict(sorted(Counter(kill.kind for kill in made).items())),
        "trials": trials,
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - began),
    }
    _say(json.dumps(summary))
    return 0


def _trial(rng: random.Random, num_kills: int, owners: int, broker_class: Any) -> list[Kill]:
    everything = [*KINDS, *RAYS]
    everything += [USERS] if owners > 1 else []
    everything += [BROKER] if broker_class is not None else []
    kinds = rng.choices(everything, k=num_kills)
    windows = WINDOWS_PER_KILL * (num_kills + 1)
    kills = schedule(rng, kinds, windows - WINDOWS_PER_KILL)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        broker = stack.enter_context(broker_class()) if broker_class is not None else None
        url = f"sqlite:///{folder}/log.db" if broker is None else broker.url
        fill(url, windows)
        config = configure(url, folder / "run", f"training.state_owners={owners}")
        stage = stack.enter_context(Stage(config, broker))
        return trial(stage, kills)[1]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
