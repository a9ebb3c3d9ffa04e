"""A running application for tests, and waiting for conditions."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from ray_rec.log import EventLog
from ray_rec.registry import Registry


@dataclass(frozen=True)
class Running:
    """An application that answers at `url`, its log and its registry."""

    url: str
    http: httpx.Client
    log: EventLog
    registry: Registry

    def version(self) -> int:
        """Return the version that should answer."""
        current = self.registry.current()
        assert current is not None
        return current.version


def eventually(holds: Callable[[], bool], within_s: float) -> None:
    """Wait until a condition holds; AssertionError when it does not in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {within_s} s"
        time.sleep(0.02)
