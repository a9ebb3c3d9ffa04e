"""Read ranges of a log and decode them, without Ray."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from ray_rec.events.decode import Decoded, decode
from ray_rec.events.schema import LOG_SCHEMA
from ray_rec.log.base import open_log

READ_RECORDS = 16_384


def decoded_batches(
    url: str, topic: str, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[Decoded]:
    """Yield the records of [start, end) decoded, some thousands at a time."""
    with open_log(url) as log:
        for raw in log.read(topic, ranges, READ_RECORDS):
            yield decode(topic, raw)


def read_decoded(url: str, topic: str, ranges: Mapping[int, tuple[int, int]]) -> Decoded:
    """Return all records of [start, end), usable and dead, in order within each partition."""
    parts = [decode(topic, LOG_SCHEMA.empty_table()), *decoded_batches(url, topic, ranges)]
    return Decoded(
        pa.concat_tables([part.table for part in parts]),
        pa.concat_tables([part.dead for part in parts]),
    )
