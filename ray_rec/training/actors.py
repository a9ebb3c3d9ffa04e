"""The two actors beside the workers: the planner, and the owner of the state."""

import asyncio
from typing import Any

import ray

from ray_rec.config import RunConfig
from ray_rec.errors import OffsetGap, RayRecError
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.window import Window
from ray_rec.training.checkpoint import Checkpoints
from ray_rec.training.owner import StateOwner
from ray_rec.training.patience import Patience
from ray_rec.training.planner import Planner
from ray_rec.training.plans import FOLDER_PLANS, PlanStore
from ray_rec.training.rehearsal import Rehearsal

RESTARTS = -1
"""Both actors are rebuilt for ever: the plans are durable, the state is in the checkpoint."""


class PlannerActor:
    """Tells windows as they come to be, alike to every worker, until it is stopped.

    What it cannot get over ends the run in order: the workers are told that there is no more, keep
    what they have, and the driver asks for the `failure`.
    """

    def __init__(
        self, config: RunConfig, end: dict[str, Offsets] | None, given: str | None
    ) -> None:
        self._config = config
        self._plans = PlanStore(f"{config.state_dir}/plans")
        self._planner = Planner(
            open_log(config.log),
            self._plans,
            config.training,
            end=end,
            given=None if given is None else PlanStore(given),
            rehearsable=Rehearsal.of(config).kept,
        )
        ends_early = end is not None and given is None and config.training.passes == 1
        self._patience = Patience(config.registry, config.training.patience if ends_early else 0)
        self._checkpoints = Checkpoints.of(config)
        self._turn = asyncio.Lock()
        self._poll_s = config.training.poll_ms / 1000
        self._stopped = False
        self._failure: RayRecError | None = None
        self._unreadable: int | None = None
        self._warnings: list[str] = []
        self._metrics: list[dict[str, Any]] = []

    async def plan(self, number: int) -> Window | None:
        """Wait for window `number`; None when the stream was stopped or its end is reached.

        The last window before None makes a full version, and is empty if the one before it did not.
        """
        while True:
            async with self._turn:
                window = None if self._stopped else await asyncio.to_thread(self._decide, number)
                if window is None and (self._stopped or self._planner.exhausted()):
                    return self._close(number)
            if window is not None:
                return window
            await asyncio.sleep(self._poll_s)

    async def ahead(self, number: int) -> Window | None:
        """Return window `number` at once, if it was decided or a backlog waits; else None."""
        async with self._turn:
            decide = not self._stopped
            return await asyncio.to_thread(self._decide, number, ahead=True, decide=decide)

    async def amend(self, window: Window) -> None:
        """Let a plan be told as `window` from now on, to every worker and read task."""
        async with self._turn:
            self._planner.amend(window)

    async def mend(self, number: int) -> Window | None:
        """Return plan `number` without what retention deleted since it was decided.

        Raises:
            OffsetGap: something was, and `training.on_gap` is "fail"; the run ends before it.
        """
        async with self._turn:
            try:
                return await asyncio.to_thread(self._planner.mend, number)
            except OffsetGap as error:
                self._unreadable = number
                self._fail(error)
                raise

    async def observe(self, number: int, num_bytes: dict[str, int]) -> None:
        """Learn what the records of a window take in memory, by topic."""
        self._planner.observe(number, num_bytes)

    async def stop(self) -> None:
        """Take nothing more from the log; windows that were decided are still told."""
        self._stopped = True

    async def failure(self) -> RayRecError | None:
        """Return what ended the run before its time, if anything did."""
        return self._failure

    async def record(self, metrics: dict[str, Any]) -> None:
        """Keep a window's metrics for the driver, with what the planner measures."""
        self._metrics.append(metrics | self._planner.measures())

    async def drain_metrics(self) -> list[dict[str, Any]]:
        """Hand over the metrics of the windows since the last call."""
        metrics, self._metrics = self._metrics, []
        return metrics

    async def drain_warnings(self) -> list[str]:
        """Hand over what an operator should know since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _decide(self, number: int, ahead: bool = False, decide: bool = True) -> Window | None:
        held = self._planner.held
        try:
            plan = self._planner
            if self._patience.is_spent(number):
                self._stopped = ahead = True
                decide = False
            window = plan.ahead(number, decide) if ahead else plan.decide(number)
        except RayRecError as error:
            self._fail(error)
            return None
        if self._planner.held not in ("", held):
            self._warnings.append(f"waiting to plan window {number}: {self._planner.held}")
        if window is not None and number % FOLDER_PLANS == 0:
            self._prune(number)
        return window

    def _close(self, number: int) -> Window | None:
        if self._unreadable is not None and number >= self._unreadable:
            return None
        try:
            return self._planner.close(number)
        except RayRecError as error:
            self._fail(error)
            return None

    def _fail(self, error: RayRecError) -> None:
        self._failure, self._stopped = error, True

    def _prune(self, number: int) -> None:
        training = self._config.training
        if training.keep_plans:
            needed = min(self._checkpoints.numbers(), default=0) - training.replay_horizon
            told = self._planner.current
            passed = number if told is None else told.oldest_needed
            self._plans.prune(min(needed, number - training.keep_plans, passed))


def start_actors(
    config: RunConfig, end: dict[str, Offsets] | None, given: str | None = None
) -> tuple[Any, Any]:
    """Return handles of a fresh planner and state owner; they live as long as the driver."""
    planner: Any = ray.remote(num_cpus=0, max_restarts=RESTARTS, max_task_retries=-1)(PlannerActor)
    owner: Any = ray.remote(num_cpus=0, max_restarts=RESTARTS)(StateOwner)
    return planner.remote(config, end, given), owner.remote(config)
