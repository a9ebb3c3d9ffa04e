"""Until when all is in: the newest time of the slowest partition, less the allowed lateness."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import AnyArray, Int64, column, first_of_groups, table_of
from ray_rec.features.part import Part


class Watermark(Part):
    """The time before which no more records are expected; it never goes back. 0 at the start."""

    always_whole = True

    def __init__(self, lateness_ms: int) -> None:
        super().__init__()
        self._lateness_ms = lateness_ms
        self._newest: dict[tuple[str, int], int] = {}
        self.value_ms = 0

    @property
    def num_bytes(self) -> int:
        """Nothing that would count."""
        return 0

    def observe(self, topic: str, partition: AnyArray, ts: Int64) -> None:
        """Take records, sorted by partition."""
        if not len(ts):
            return
        first = first_of_groups(partition)
        newest = np.maximum.reduceat(ts, first).tolist()
        for number, latest in zip(partition[first].tolist(), newest, strict=True):
            key = (topic, number)
            self._newest[key] = max(latest, self._newest.get(key, 0))

    def advance(self, idle: Collection[tuple[str, int]], at_least_ms: int | None) -> int:
        """Move on as far as partitions that are not idle allow; return the new value.

        A partition without any record yet holds nothing back.
        """
        waited = [ts for key, ts in self._newest.items() if key not in idle]
        reached = min(waited) - self._lateness_ms if waited else 0
        self.value_ms = max(self.value_ms, reached, at_least_ms or 0)
        return self.value_ms

    def _segment(self, whole: bool) -> pa.Table:
        """Return the newest time of each partition; the value is in the metadata."""
        topics, partitions = [t for t, _ in self._newest], [p for _, p in self._newest]
        columns = {
            "topic": pa.array(topics, pa.string()),
            "partition": pa.array(partitions, pa.int32()),
            "ts": pa.array(list(self._newest.values()), pa.int64()),
        }
        return table_of(columns).replace_schema_metadata({"value_ms": str(self.value_ms)})

    def _load(self, table: pa.Table) -> None:
        keys = zip(*(column(table, n).to_pylist() for n in ("topic", "partition")), strict=True)
        self._newest = dict(zip(keys, column(table, "ts").to_pylist(), strict=True))
        self.value_ms = int(table.schema.metadata[b"value_ms"])
