"""Complete Journey in a log of its own, for benchmarks."""

import time

from ray_rec.config import RunConfig, load_config
from ray_rec.datasets import complete_journey
from ray_rec.log.base import create_standard_topics, open_log


def configure(folder: str, *changes: str, log: str | None = None) -> RunConfig:
    """Return the configuration of a run whose log, registry and state lie in `folder`."""
    places = (
        f"log={log or f'sqlite:///{folder}/log.db'}",
        f"registry={folder}/registry",
        f"state_dir={folder}/state",
    )
    return load_config(None, (*places, *complete_journey.OVERRIDES, *changes), environ={})


def load(config: RunConfig, weeks: tuple[int, int]) -> dict[str, int]:
    """Put weeks into the log, moved in time to end now; return the records by topic."""
    with open_log(config.log) as log:
        create_standard_topics(log, config.partitions)
        report = complete_journey.load(log, weeks, end_ms=int(time.time() * 1000))
    return dict(report.counts)
