"""Ranges of a log as a Ray Data source: one read task a range, large ranges split further.

Decoding happens inside the read tasks; a stage of its own would ship every raw record once more.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import Block, BlockMetadata

from ray_rec.errors import ConfigError
from ray_rec.events.decode import dead_letters
from ray_rec.events.schema import DEAD_LETTER
from ray_rec.log.base import Ranges, open_log
from ray_rec.log.reading import READ_RECORDS, decoded_batches

_BLOCK_RECORDS = 100_000

_logger = logging.getLogger(__name__)

_Range = tuple[str, int, int, int]
"""Topic, partition, start, end."""


class LogSource(Datasource):
    """Reads exactly these ranges; a retried task reads the same records again.

    Args:
        url: the log.
        ranges: topic to partition to [start, end).
        decode: give the decoded columns of the one topic that `ranges` names; else raw records
            (LOG_SCHEMA) after a column `topic`.
        split_records: longest stretch that one task reads.
        dead_letters: append unusable records to `dead-letter`, at least once; without it they are
            only counted in the task's log.
    """

    def __init__(
        self,
        url: str,
        ranges: Ranges,
        decode: bool = True,
        split_records: int = 200_000,
        dead_letters: bool = False,
    ) -> None:
        if decode and len(ranges) != 1:
            raise ConfigError(
                f"a decoded source holds one topic, got {sorted(ranges)}; "
                "use one source a topic, or decode=False"
            )
        if split_records < 1:
            raise ConfigError(f"split_records is {split_records}; expected at least 1")
        self._url = url
        self._decode, self._dead_letters = decode, dead_letters
        self.ranges = _split(ranges, split_records)

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before reading."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """One task a range, whatever parallelism is asked for."""
        return [ReadTask(self._reader(part), _metadata(part)) for part in self.ranges]

    def _reader(self, part: _Range) -> Callable[[], Iterator[Block]]:
        if self._decode:
            return partial(_read_decoded, self._url, part, self._dead_letters)
        return partial(_read_raw, self._url, part)


def read_log(
    url: str,
    ranges: Ranges,
    decode: bool = True,
    split_records: int = 200_000,
    dead_letters: bool = False,
    **read_options: Any,
) -> Dataset:
    """Return a Dataset of these ranges; `read_options` go to `ray.data.read_datasource`."""
    source = LogSource(url, ranges, decode, split_records, dead_letters)
    # As many blocks as tasks: with fewer tasks than asked for, Ray would split their outputs.
    blocks = max(1, len(source.ranges))
    dataset: Dataset = ray.data.read_datasource(source, override_num_blocks=blocks, **read_options)
    return dataset


def _split(ranges: Ranges, split_records: int) -> list[_Range]:
    return [
        (topic, partition, at, min(at + split_records, end))
        for topic, spans in ranges.items()
        for partition, (start, end) in sorted(spans.items())
        for at in range(start, end, split_records)
    ]


def _metadata(part: _Range) -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)


def _read_decoded(url: str, part: _Range, keep_dead: bool) -> Iterator[Block]:
    topic, partition, start, end = part
    tables, num_rows = [], 0
    dead: Counter[str] = Counter()
    for _, decoded in decoded_batches(url, {topic: {partition: (start, end)}}):
        tables.append(decoded.table)
        num_rows += decoded.table.num_rows
        if decoded.dead.num_rows:
            dead.update(map(str, decoded.dead["reason"].to_pylist()))
            if keep_dead:
                _append_dead(url, decoded.dead)
        if num_rows >= _BLOCK_RECORDS:
            yield pa.concat_tables(tables)
            tables, num_rows = [], 0
    if tables:
        yield pa.concat_tables(tables)
    if dead:
        _logger.warning("%s/%d [%d, %d): unusable records %s", *part, dict(dead))


def _append_dead(url: str, dead: pa.Table) -> None:
    with open_log(url) as log:
        log.append(DEAD_LETTER, dead_letters(dead))


def _read_raw(url: str, part: _Range) -> Iterator[Block]:
    topic, partition, start, end = part
    with open_log(url) as log:
        for table in log.read(topic, {partition: (start, end)}, READ_RECORDS):
            names = pa.array([topic] * table.num_rows, pa.string())
            yield table.add_column(0, "topic", names)
