"""Where one stream runs again and again: with kills, then undisturbed over the same plans."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray_rec.config import RunConfig
from tests.chaos.job import DRIVER, Job
from tests.chaos.kills import RUN_TIMEOUT_S, Kill, await_moment, strike
from tests.chaos.outcome import Outcome
from tests.waiting import until


class Stage:
    """A folder with registry and state, the same one for all runs, as manifests name it.

    Leaving it waits for the last process of every run, and fails if one stays.
    """

    def __init__(self, config: RunConfig, broker: Any = None) -> None:
        self.config, self._broker = config, broker
        self._place = Path(config.registry).parent
        self._jobs: list[Job] = []
        self._before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for job in self._jobs:
                    job.settle()
        finally:
            for job in self._jobs:
                job.close()

    def run(self, kills: Sequence[Kill] = ()) -> tuple[Outcome, list[Kill]]:
        """Stream to the log's end through these kills; return those that came before the end.

        Whoever operates the run starts a killed driver and a killed broker again.
        """
        waiting, made = list(kills), list[Kill]()
        while self._act(waiting, made) == DRIVER:
            pass
        return Outcome.of(self.config), made

    def repeat(
        self, config: RunConfig | None = None, kills: Sequence[Kill] = ()
    ) -> tuple[Outcome, list[Kill]]:
        """Stream over the plans of the run before, whose folder is moved out of the way.

        `config` may change what learns; it names the same places.
        """
        self.config = config or self.config
        self._before += 1
        moved = self._place.with_name(f"{self._place.name}.{self._before}")
        self._place.rename(moved)
        shutil.copytree(moved / "state" / "plans", self._place / "state" / "plans")
        return self.run(kills)

    def _act(self, waiting: list[Kill], made: list[Kill]) -> str | None:
        """Run until the end or until the driver is killed; return what was killed last."""
        output = self._place.with_name(f"{self._place.name}.log")
        job = Job(self.config, output)
        self._jobs.append(job)
        last = None
        while waiting and last != DRIVER and await_moment(job, self.config, waiting[0]):
            if not strike(job, waiting[0], self._broker):
                break
            last = waiting[0].kind
            made.append(waiting.pop(0))
        until(lambda: job.ended is not None, RUN_TIMEOUT_S)
        assert job.ended == (-9 if last == DRIVER else 0), f"{made}\n{job.log_tail()}"
        job.finish()
        return last
