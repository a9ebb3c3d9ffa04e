"""Stretches of a log as Parquet files: `TOPIC/PARTITION/START-END.parquet`, raw and exact.

What retention deletes from the log can be read back from here, with its old offsets, or be put
into another log by `replay`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_rec.errors import LogError, OffsetGap, TopicMissing
from ray_rec.events.schema import LOG_SCHEMA
from ray_rec.log.base import EventLog, Offsets

_NAME = re.compile(r"(\d+)-(\d+)\.parquet")


class Archive:
    """A folder of archived ranges; files are written whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, log: EventLog, topic: str, ranges: Mapping[int, tuple[int, int]]) -> int:
        """Copy [start, end) of each partition into one file each; return the number of records.

        A range that is already archived under the same bounds is left as it is.
        """
        num_records = 0
        for partition, (start, end) in sorted(ranges.items()):
            file = self.path / topic / str(partition) / f"{start:020d}-{end:020d}.parquet"
            if start >= end or file.exists():
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            with pq.ParquetWriter(part, LOG_SCHEMA, compression="zstd") as writer:
                for table in log.read(topic, {partition: (start, end)}):
                    writer.write_table(table)
                    num_records += table.num_rows
            part.rename(file)
        return num_records

    def topics(self) -> dict[str, int]:
        """Return each archived topic with its number of partitions."""
        if not self.path.is_dir():
            raise LogError(f"no archive at {self.path}; expected a folder of topics")
        folders = sorted(p for p in self.path.iterdir() if p.is_dir())
        return {topic.name: len(self._spans(topic.name)) for topic in folders}

    def earliest(self, topic: str) -> Offsets:
        """Return the first archived offset, by partition."""
        return {p: min(spans)[0] for p, spans in self._spans(topic).items()}

    def latest(self, topic: str) -> Offsets:
        """Return the offset after the last archived one, by partition."""
        return {p: max(end for _, end in spans) for p, spans in self._spans(topic).items()}

    def read(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], batch_records: int = 10_000
    ) -> Iterator[pa.Table]:
        """Yield the records of [start, end), partition after partition, as a log would.

        Raises OffsetGap where no file covers an offset.
        """
        archived = self._spans(topic)
        for partition, (start, end) in sorted(ranges.items()):
            for first, last in sorted(archived.get(partition, [])):
                if start < end and first <= start < last:
                    stop = min(last, end)
                    yield from self._read_file(topic, partition, (first, last), start, stop)
                    start = stop
            if start < end:
                raise OffsetGap(f"{self.path}: {topic}/{partition} [{start}, {end}) not archived")

    def _read_file(
        self, topic: str, partition: int, span: tuple[int, int], start: int, end: int
    ) -> Iterator[pa.Table]:
        file = self.path / topic / str(partition) / f"{span[0]:020d}-{span[1]:020d}.parquet"
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches():
                offsets = batch["offset"].to_numpy()
                inside = (offsets >= start) & (offsets < end)
                if inside.any():
                    yield pa.Table.from_batches([batch.filter(pa.array(inside))], LOG_SCHEMA)

    def _spans(self, topic: str) -> dict[int, list[tuple[int, int]]]:
        folder = self.path / topic
        spans: dict[int, list[tuple[int, int]]] = {}
        for file in sorted(folder.glob("*/*.parquet")):
            if found := _NAME.fullmatch(file.name):
                span = (int(found[1]), int(found[2]))
                spans.setdefault(int(file.parent.name), []).append(span)
        if not spans:
            raise TopicMissing(f"{self.path} holds no archived topic {topic!r}")
        return spans
