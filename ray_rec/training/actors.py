"""The two actors beside the workers: the planner, and the owner of the state."""

import asyncio
from typing import Any

import ray

from ray_rec.config import RunConfig
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.window import Window
from ray_rec.training.owner import StateOwner
from ray_rec.training.planner import Planner
from ray_rec.training.plans import PlanStore

RESTARTS = -1
"""Both actors are rebuilt for ever: the plans are durable, the state is in the checkpoint."""


class PlannerActor:
    """Tells windows as they come to be, alike to every worker, until it is stopped."""

    def __init__(self, config: RunConfig, end: dict[str, Offsets] | None) -> None:
        plans = PlanStore(f"{config.state_dir}/plans")
        self._planner = Planner(open_log(config.log), plans, config.training, end)
        self._poll_s = config.training.poll_ms / 1000
        self._stopped = False
        self._metrics: list[dict[str, Any]] = []

    async def plan(self, number: int) -> Window | None:
        """Wait for window `number`; None when the stream was stopped or its end is reached.

        The last window before None makes a full version, and is empty if the one before it did not.
        """
        while True:
            window = None if self._stopped else self._planner.decide(number)
            if window is None and (self._stopped or self._planner.exhausted()):
                return self._planner.close(number)
            if window is not None:
                return window
            await asyncio.sleep(self._poll_s)

    async def ahead(self, number: int) -> Window | None:
        """Return window `number` at once, if it was decided or a backlog waits; else None."""
        return self._planner.ahead(number, decide=not self._stopped)

    async def amend(self, window: Window) -> None:
        """Let a plan be told as `window` from now on, to every worker and read task."""
        self._planner.amend(window)

    async def stop(self) -> None:
        """Take nothing more from the log; windows that were decided are still told."""
        self._stopped = True

    async def record(self, metrics: dict[str, Any]) -> None:
        """Keep a window's metrics for the driver."""
        self._metrics.append(metrics)

    async def drain_metrics(self) -> list[dict[str, Any]]:
        """Hand over the metrics of the windows since the last call."""
        metrics, self._metrics = self._metrics, []
        return metrics


def start_actors(config: RunConfig, end: dict[str, Offsets] | None) -> tuple[Any, Any]:
    """Return handles of a fresh planner and state owner; they live as long as the driver."""
    planner: Any = ray.remote(num_cpus=0, max_restarts=RESTARTS, max_task_retries=-1)(PlannerActor)
    owner: Any = ray.remote(num_cpus=0, max_restarts=RESTARTS)(StateOwner)
    return planner.remote(config, end), owner.remote(config)
