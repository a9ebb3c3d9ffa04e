"""One `jobs/stream.py` with a Ray cluster of its own, and the processes that belong to it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ray_rec.config import RunConfig
from tests.conftest import ROOT
from tests.training.shop import flags
from tests.waiting import until

DRIVER = "driver"
TITLES = {
    "worker": "ray::RayTrainWorker",
    "owner": "ray::StateOwner",
    "users": "ray::UserOwnerActor",
    "planner": "ray::PlannerActor",
    "reader": "ray::ReadWindowSource",
    "coordinator": "ray::SplitCoordinator",
    "controller": "ray::TrainController",
}
"""How Ray names the processes of each kind; a reader is one only while it reads."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own: after a killed driver they try to reach its cluster for a minute before they end."""

GONE_TIMEOUT_S, AGENTS_GONE_TIMEOUT_S = 60, 120


class Job:
    """A running stream, to the log's present end. Its processes share a session: the driver's."""

    def __init__(self, config: RunConfig, output: Path) -> None:
        self._scratch = tempfile.mkdtemp(prefix="ray-")  # unix sockets need short paths
        self._output = output
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        command = [sys.executable, "-m", "jobs.stream", "--until-end", *flags(config)]
        with output.open("ab") as file:
            self._driver = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environment, "RAY_TMPDIR": self._scratch},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def ended(self) -> int | None:
        """The driver's exit status; None while it runs."""
        return self._driver.poll()

    def titles(self) -> dict[int, str]:
        """Return what each living process of the run calls itself, by pid."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(name)) == self._driver.pid:
                    title = Path("/proc", name, "cmdline").read_bytes()
                    found[int(name)] = title.replace(b"\0", b" ").decode(errors="replace").strip()
            except (ProcessLookupError, FileNotFoundError):
                continue
        return {pid: title for pid, title in found.items() if title}  # the dead have none

    def find(self, kind: str) -> int | None:
        """Return the pid of a process of this kind, None where there is none at the moment."""
        if kind == DRIVER:
            return self._driver.pid
        ours = (pid for pid, title in self.titles().items() if title.startswith(TITLES[kind]))
        return next(ours, None)

    def kill(self, pid: int) -> None:
        """Send SIGKILL; a process that is gone by now is left in peace."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if pid == self._driver.pid:
            self._driver.wait()

    def finish(self) -> None:
        """Wait until nothing of ours is left of a run whose driver has ended."""
        until(lambda: not self._left(besides=AGENTS), GONE_TIMEOUT_S)

    def settle(self) -> None:
        """Wait until nothing at all is left."""
        until(lambda: not self._left(), AGENTS_GONE_TIMEOUT_S)

    def _left(self, besides: tuple[str, ...] = ()) -> list[str]:
        return [title for title in self.titles().values() if title not in besides]

    def close(self) -> None:
        """Kill whatever is left."""
        while titles := self.titles():
            for pid in titles:
                self.kill(pid)
        self._driver.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def log_tail(self) -> str:
        """Return the end of what the run has printed."""
        return self._output.read_text(errors="replace")[-4000:]
