"""Windows as a Ray Data source: one Dataset for the life of the stream, one window an iteration."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataIterator, Dataset, Datasource, ReadTask
from ray.data.block import Block, BlockMetadata
from ray.train import DataConfig

from ray_rec.errors import OffsetGap
from ray_rec.events.decode import Decoded
from ray_rec.log.reading import read_decoded
from ray_rec.log.window import Window


def _read_window(window: Window, planner: Any, owner: Any, log_url: str) -> pa.Table:
    """Return the examples of `window`: held by the state's owner, or read, decoded and applied."""
    held: pa.Table | None = ray.get(owner.held.remote(window.number))
    if held is not None:
        return held
    window, decoded = _read(window, planner, log_url)
    sizes = {topic: part.table.nbytes + part.dead.nbytes for topic, part in decoded.items()}
    planner.observe.remote(window.number, sizes)
    tables = {topic: part.table for topic, part in decoded.items()}
    dead = [part.dead for part in decoded.values()]
    examples: pa.Table = ray.get(owner.apply.remote(window, tables, dead))
    return examples


def _read(window: Window, planner: Any, log_url: str) -> tuple[Window, dict[str, Decoded]]:
    """Read `window`, as amended if retention deleted some of it since it was decided."""
    while True:
        try:
            return window, read_decoded(log_url, window.ranges)
        except OffsetGap:
            amended: Window = ray.get(planner.mend.remote(window.number))
            if amended == window:
                raise
            window = amended


class WindowSource(Datasource):
    """Reads whatever window the workers are at, so the same Dataset serves every window.

    Args:
        planner: actor that amends a window which cannot be read any more.
        owner: actor with `expected() -> Window | None`, the window that is asked for, and
            `apply(window, tables, dead) -> pa.Table`.
        log_url: the log to read.
    """

    def __init__(self, planner: Any, owner: Any, log_url: str) -> None:
        self._planner, self._owner, self._log_url = planner, owner, log_url

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before the window is read."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """One task for the window that the owner expects, and none before the first.

        The window is bound here, when an epoch starts: a retried task reads the same one.
        """
        window: Window | None = ray.get(
            self._owner.expected.options(max_task_retries=-1).remote()  # asking changes nothing
        )
        if window is None:
            return []
        planner, owner, log_url = self._planner, self._owner, self._log_url

        def read() -> Iterable[Block]:
            return [_read_window(window, planner, owner, log_url)]

        return [ReadTask(read, BlockMetadata(None, None, None, None))]


def window_dataset(source: WindowSource, num_workers: int, num_cpus: float) -> Dataset:
    """Return the Dataset whose every iteration is one window, cut for `num_workers` to share."""
    dataset: Dataset = ray.data.read_datasource(
        source, num_cpus=num_cpus, override_num_blocks=num_workers
    )
    return dataset


class EveryRow(DataConfig):
    """Splits without dropping rows; Ray Train's own split makes shards equal by dropping some."""

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *_: Any, **__: Any
    ) -> list[dict[str, DataIterator]]:
        """Return one iterator a worker and dataset."""
        shards: list[dict[str, DataIterator]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            for shard, part in zip(
                shards, dataset.streaming_split(world_size, equal=False), strict=True
            ):
                shard[name] = part
        return shards
