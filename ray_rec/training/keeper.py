"""Keeps checkpoints beside learning: copied by the loop, written by a thread of its own.

The state's snapshot goes first, the checkpoint that names it second; what crashes in between
leaves a snapshot too many and nothing else.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ray_rec.config import RunConfig
from ray_rec.errors import RayRecError
from ray_rec.log.base import Offsets
from ray_rec.registry import Registry
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint
from ray_rec.training.owner import Kept

PATIENCE = 3
"""Failures to write in a row that are logged and tried again; one more is raised."""

_log = logging.getLogger(__name__)


class Keeper:
    """Writes one checkpoint at a time, every `training.checkpoint_interval_s`.

    Args:
        config: where, how often and how many.
        kept: told the number of a checkpoint once it is durable, and that of the oldest one.
    """

    def __init__(self, config: RunConfig, kept: Callable[[int, int], object]) -> None:
        self._checkpoints = Checkpoints.of(config)
        self._registry = Registry(config.registry, create=True)
        self._interval_s, self._kept = config.training.checkpoint_interval_s, kept
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[float] | None = None
        self._began_at = -float("inf")
        self._failures = 0
        self._base: int | None = None
        self._whole_bytes = self._changed_bytes = 0
        self.seconds = 0.0
        """What the last checkpoint took to write."""

    def due(self) -> bool:
        """Whether the interval has passed and nothing is being written.

        Raises:
            RayRecError: writing failed again and again.
        """
        if self._writing is not None:
            if not self._writing.done():
                return False
            self._settle(self._writing)
        return time.monotonic() - self._began_at >= self._interval_s

    @property
    def base(self) -> int | None:
        """The snapshot that the next one may build on; None asks for a whole state.

        A whole one is due when what changed since the last is as large as that.
        """
        return self._base if self._changed_bytes < self._whole_bytes else None

    def keep(
        self, checkpoint: TrainerCheckpoint, state: Kept, offsets: Mapping[str, Offsets]
    ) -> None:
        """Begin to write; nothing that is given may change afterwards."""
        self._began_at = time.monotonic()
        self._writing = self._thread.submit(self._write, checkpoint, state, offsets)

    def flush(self) -> None:
        """Wait for what is being written; raise if it failed."""
        if self._writing is not None:
            self._failures = PATIENCE
            self._settle(self._writing)

    def _settle(self, writing: Future[float]) -> None:
        self._writing = None
        try:
            self.seconds, self._failures = writing.result(), 0
        except (OSError, RayRecError) as error:
            self._failures += 1
            self._began_at = -float("inf")
            if self._failures > PATIENCE:
                raise
            _log.error("a checkpoint could not be written, trying again: %s", error)

    def _write(
        self, checkpoint: TrainerCheckpoint, state: Kept, offsets: Mapping[str, Offsets]
    ) -> float:
        started = time.perf_counter()
        number, also = checkpoint.number, self._checkpoints.numbers()
        self._base = None  # until it is written, nothing can build on it
        self._registry.publish_snapshot(number, state.tables, offsets, state.base, also)
        self._checkpoints.write(checkpoint)
        self._count(state)
        self._base = number
        self._kept(number, self._checkpoints.numbers()[0])
        return time.perf_counter() - started

    def _count(self, state: Kept) -> None:
        size = sum(table.nbytes for table in state.tables.values())
        if state.base is None:
            self._whole_bytes, self._changed_bytes = size, 0
        else:
            self._changed_bytes += size
