"""Read ranges of a log and decode them, without Ray."""

from collections.abc import Iterator

import pyarrow as pa

from ray_rec.events.decode import Decoded, decode
from ray_rec.events.schema import LOG_SCHEMA
from ray_rec.log.base import Ranges, open_log

READ_RECORDS = 16_384


def decoded_batches(url: str, ranges: Ranges) -> Iterator[tuple[str, Decoded]]:
    """Yield the records of [start, end) decoded, with their topic, some thousands at a time."""
    with open_log(url) as log:
        for topic, raw in log.read_topics(ranges, READ_RECORDS):
            yield topic, decode(topic, raw)


def read_decoded(url: str, ranges: Ranges) -> dict[str, Decoded]:
    """Return all records of each topic, usable and dead, in order within each partition."""
    parts = {topic: [decode(topic, LOG_SCHEMA.empty_table())] for topic in ranges}
    for topic, decoded in decoded_batches(url, ranges):
        parts[topic].append(decoded)
    return {topic: _joined(found) for topic, found in parts.items()}


def _joined(parts: list[Decoded]) -> Decoded:
    return Decoded(
        pa.concat_tables([part.table for part in parts]),
        pa.concat_tables([part.dead for part in parts]),
    )
