"""Where the time of a window goes."""

import time
from dataclasses import dataclass, field


@dataclass
class Laps:
    """Seconds that were spent on each stage, as `STAGE_s`."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def end(self, stage: str) -> None:
        """Count the time since the last end, or since the start, for a stage."""
        name, now = f"{stage}_s", time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
