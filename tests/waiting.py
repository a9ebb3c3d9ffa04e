"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object], timeout_s: float = 60.0, pause_s: float = 0.05) -> None:
    """Return when `holds` gives something true; AssertionError when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {holds}"
        time.sleep(pause_s)
