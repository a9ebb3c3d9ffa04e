"""Following topics with kafka-python: low latency, partitions added later included."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from ray_rec.errors import LogUnavailable, OffsetGap
from ray_rec.events.schema import LOG_SCHEMA
from ray_rec.log.base import Offsets
from ray_rec.log.kafka.address import Address

NEW_PARTITIONS_EVERY_S = 1.0
_WAIT_MS = 50

_logger = logging.getLogger(__name__)


class Tail:
    """A consumer without a group: positions are the caller's, nothing is committed."""

    def __init__(
        self,
        address: Address,
        offsets: Mapping[str, Offsets],
        earliest: Callable[[str], Offsets],
        poll_s: float,
    ) -> None:
        self._given, self._earliest, self._url = offsets, earliest, address.url
        self._assigned: set[TopicPartition] = set()
        self._looked = 0.0
        self._consumer = KafkaConsumer(
            **address.python_settings(),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=max(1, int(poll_s * 1000)),
            max_poll_records=10_000,
            max_partition_fetch_bytes=4 << 20,
        )

    def tables(self, stop: threading.Event) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table) until `stop` is set; one table a topic and poll."""
        try:
            while not stop.is_set():
                self._look_for_partitions()
                yield from self._poll()
        except OffsetOutOfRangeError as error:
            places = "; ".join(
                f"{tp.topic}/{tp.partition} from {at}" for tp, at in error.args[0].items()
            )
            raise OffsetGap(
                f"{self._url}: offsets were deleted by retention: {places}; "
                "start from a newer state snapshot"
            ) from error
        except KafkaError as error:
            raise LogUnavailable(f"{self._url} cannot be followed: {error}") from error
        finally:
            self._consumer.close()

    def _look_for_partitions(self) -> None:
        if time.monotonic() - self._looked < NEW_PARTITIONS_EVERY_S:
            return
        for topic, given in self._given.items():
            try:
                earliest = self._earliest(topic)
            except LogUnavailable as error:
                if not self._assigned:
                    raise
                _logger.warning("%s; following goes on when they are back", error)
                break
            offsets = {TopicPartition(topic, p): given.get(p, at) for p, at in earliest.items()}
            fresh = {tp: at for tp, at in offsets.items() if tp not in self._assigned}
            self._assigned |= set(fresh)
            self._consumer.assign(list(self._assigned))
            for partition, offset in fresh.items():
                self._consumer.seek(partition, offset)
        self._looked = time.monotonic()

    def _poll(self) -> Iterator[tuple[str, pa.Table]]:
        found: dict[str, list[Any]] = {}
        for partition, records in self._consumer.poll(_WAIT_MS).items():
            found.setdefault(partition.topic, []).extend(records)
        for topic, records in found.items():
            yield topic, _to_table(records)


def _to_table(records: Sequence[Any]) -> pa.Table:
    columns: list[Any] = [
        pa.array([r.partition for r in records], pa.int32()),
        pa.array([r.offset for r in records], pa.int64()),
        pa.array([r.timestamp for r in records], pa.int64()),
        pa.array([r.key for r in records], pa.binary()),
        pa.array([r.value for r in records], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=LOG_SCHEMA)
