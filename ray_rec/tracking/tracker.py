"""What takes a stream's metrics."""

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """One place where metrics go. One thread calls it; what it raises is logged and stops nothing.

    An implementation opens in `__init__` what it needs and raises ConfigError where it cannot.
    """

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take all measurements as they stand; called once a second, and once before `close`.

        Args:
            step: number of the newest window. It repeats while no window comes, and goes back
                where windows are learned again after a failure.
            metrics: paths as in `ray_rec.tracking.measures`; values may be NaN.
        """

    def close(self) -> None:
        """Write what waits, and let go."""
