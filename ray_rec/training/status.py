"""What an operator wants to know in one screen, read from the log and the registry alone."""

import time
from dataclasses import dataclass

from ray_rec.config import RunConfig
from ray_rec.events.schema import DEAD_LETTER
from ray_rec.log.base import Offsets, open_log
from ray_rec.registry import Registry
from ray_rec.training.planner import LEARNED_TOPICS


@dataclass(frozen=True)
class Status:
    """The state of a stream.

    Attributes:
        version: the version in service, None before the first.
        held: whether a rollback holds it.
        age_s: seconds since it was made.
        newest: the newest version published, in service or not.
        lag: records written and not yet learned by `newest`, by topic and partition.
        dead_letters: records in the dead-letter topic.
        metrics: what the version in service was measured with.
    """

    version: int | None
    held: bool
    age_s: float | None
    newest: int | None
    lag: dict[str, Offsets]
    dead_letters: int
    metrics: dict[str, float]


def status(config: RunConfig) -> Status:
    """Read the status; RegistryError or LogError when there is nothing to read it from."""
    registry = Registry(config.registry)
    current, versions = registry.current(), registry.versions()
    serving = registry.manifest(current.version) if current else None
    learned = registry.manifest(versions[-1]).offsets if versions else {}
    with open_log(config.log) as log:
        latest = {topic: log.latest(topic) for topic in (*LEARNED_TOPICS, DEAD_LETTER)}
        dead = latest.pop(DEAD_LETTER)
        first = log.earliest(DEAD_LETTER)
    return Status(
        version=current.version if current else None,
        held=bool(current and current.held),
        age_s=time.time() - serving.created_at / 1000 if serving else None,
        newest=versions[-1] if versions else None,
        lag={
            topic: {p: end - learned.get(topic, {}).get(p, 0) for p, end in ends.items()}
            for topic, ends in latest.items()
        },
        dead_letters=sum(end - first.get(p, 0) for p, end in dead.items()),
        metrics=dict(serving.metrics) if serving else {},
    )
