"""Which process dies at which moment; moments are progress of the run, so a seed repeats them."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_rec.config import RunConfig
from tests.chaos.job import DRIVER, Job
from tests.waiting import until

BROKER = "broker"
KINDS = (DRIVER, "worker", "owner", "planner", "reader")
"""What may die on every log; on Kafka the broker as well."""
USERS = "users"
"""One of several owners of users may die where there are some."""
RAYS = ("coordinator", "controller")
"""Processes of Ray's that may die as well: what deals out windows, what watches the workers."""

RUN_TIMEOUT_S = 240
_MOST_STEPS = 12


@dataclass(frozen=True)
class Kill:
    """SIGKILL for a process of `kind`, as soon as there is one after the moment.

    The moment: `version` is published, and since then processes of the run have been seen to
    turn to something else `steps` times.
    """

    kind: str
    version: int
    steps: int


def schedule(rng: random.Random, kinds: Sequence[str], versions: int) -> list[Kill]:
    """Return one kill of each of `kinds` at random moments before the last of `versions`."""
    moments = sorted(rng.randrange(1, versions) for _ in kinds)
    mixed = rng.sample(kinds, len(kinds))
    return [
        Kill(kind, version, rng.randrange(_MOST_STEPS))
        for kind, version in zip(mixed, moments, strict=True)
    ]


def newest_version(config: RunConfig) -> int:
    """Return the newest version published, 0 before the first."""
    names = (path.name for path in Path(config.registry, "versions").glob("[0-9]*"))
    return max(map(int, names), default=0)


def await_moment(job: Job, config: RunConfig, kill: Kill) -> bool:
    """Wait for the kill's moment; False when the run has ended before."""
    until(lambda: job.ended is not None or newest_version(config) >= kill.version, RUN_TIMEOUT_S)
    seen, steps = job.titles(), 0
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while job.ended is None and steps < kill.steps:
        assert time.monotonic() < deadline, f"nothing happens: {seen}\n{job.log_tail()}"
        titles = job.titles()
        steps, seen = steps + (titles != seen), titles
        time.sleep(0.002)
    return job.ended is None


def strike(job: Job, kill: Kill, broker: Any) -> bool:
    """Kill; False when the run ended before a process of this kind was seen."""
    if kill.kind == BROKER:
        broker.kill()
        broker.restart()
        return True
    found: list[int] = []

    def seen() -> bool:
        pid = job.find(kill.kind)
        found.extend([] if pid is None else [pid])
        return bool(found) or job.ended is not None

    until(seen, RUN_TIMEOUT_S, pause_s=0.002)
    if job.ended is not None:
        return False
    job.kill(found[0])
    return True
