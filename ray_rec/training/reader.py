"""Windows on their way to a worker: read when they are asked for, or while another is learned."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa
import ray
import torch

from ray_rec.errors import StateError
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.log.window import Window
from ray_rec.training.owner import WindowSide
from ray_rec.training.workers import Workers

_CANONICAL: list[tuple[str, Literal["ascending", "descending"]]] = [
    (key, "ascending") for key in ("step", "topic_code", "partition", "offset")
]
"""Blocks arrive in any order; sums over rows are taken in this one."""

Read = tuple[pa.Table, WindowSide]


class WindowReader:
    """One worker's way to its share of each window.

    A backlog is read ahead by one window, beside learning. A window that took all that is new is
    not: what comes in while it is learned would wait for the one after next.

    Args:
        shard: the DataIterator of this worker; each iteration is one window.
        planner: actor that tells windows.
        owner: actor that holds the state, told by rank 0 what is read next.
        workers: the process group.
    """

    def __init__(self, shard: Any, planner: Any, owner: Any, workers: Workers) -> None:
        self._shard, self._planner, self._owner = shard, planner, owner
        self._workers = workers
        self._thread = ThreadPoolExecutor(1, "windows")
        self._ahead: tuple[Window, Future[Read]] | None = None

    def next(self, number: int) -> Window | None:
        """Return plan `number`, waiting for it; None when there are no more."""
        if self._ahead is not None:
            return self._ahead[0]
        window: Window | None = ray.get(self._planner.plan.remote(number))
        return window

    def read(self, window: Window) -> Read:
        """Return this worker's rows in canonical order, and what all workers share.

        Raises:
            StateError: the workers together did not get every row.
        """
        ahead, self._ahead = self._ahead, None
        share, side = ahead[1].result() if ahead is not None else self._fetch(window)
        received = int(self._workers.add(torch.tensor(share.num_rows)))
        if received != side.num_rows:
            raise StateError(
                f"window {window.number} has {side.num_rows} rows, the workers got {received}; "
                "they go back to the last checkpoint"
            )
        return share, side

    def read_ahead(self, number: int, unless: bool) -> None:
        """Begin to read window `number` if there is a backlog, `unless` the state is to be kept."""
        if unless:
            return
        window: Window | None = ray.get(self._planner.ahead.remote(number))
        if window is not None:
            self._ahead = window, self._thread.submit(self._fetch, window)

    def drop(self) -> None:
        """Let go of what was read ahead; the Dataset can be iterated again."""
        if self._ahead is not None:
            self._ahead[1].result()
            self._ahead = None

    def _fetch(self, window: Window) -> Read:
        if self._workers.rank == 0:
            ray.get(self._owner.expect.remote(window))
        tables = list(self._shard.iter_batches(batch_size=None, batch_format="pyarrow"))
        share = pa.concat_tables([EXAMPLES_SCHEMA.empty_table(), *tables]).sort_by(_CANONICAL)
        side: WindowSide = ray.get(self._owner.side.remote(window.number))
        return share, side
