"""An EventLog over Kafka: kafka-python administers, appends and follows, librdkafka reads in bulk.

Producing is idempotent with acks=all. Topics made here keep records for ever and at any record
time; set `retention.ms` on the broker's side to change that.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, RetriableError, TopicAlreadyExistsError

from ray_rec.errors import ConfigError, LogError, LogUnavailable, TopicMissing
from ray_rec.events.schema import ITEMS, Record
from ray_rec.log.base import (
    Offsets,
    Ranges,
    check_positions,
    check_ranges,
    check_records,
    non_empty,
)
from ray_rec.log.kafka.address import Address
from ray_rec.log.kafka.bulk import UnknownPartition, read_ranges
from ray_rec.log.kafka.tail import NEW_PARTITIONS_EVERY_S, Tail
from ray_rec.log.partition import partition_of

_Answer = TypeVar("_Answer")

CONNECT_TIMEOUT_MS = 10_000
APPEND_TIMEOUT_MS = 60_000
MAX_MESSAGE_BYTES = 16 << 20
_READ_COMMITTED = 1
_LONG_MAX = 2**63 - 1

TOPIC_SETTINGS = {
    # Record times may lie years back: retention by time would delete them at once.
    "retention.ms": "-1",
    "message.timestamp.after.max.ms": str(_LONG_MAX),
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
}

_client_logger = logging.getLogger("kafka")
if _client_logger.level == logging.NOTSET:
    # It reports every attempt to connect as an error; what matters is raised anyway.
    _client_logger.setLevel(logging.CRITICAL)


class KafkaLog:
    """An EventLog on Kafka brokers; connects when first used."""

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self.url = self._address.url
        self._lock = threading.RLock()
        self._admin: Any = None
        self._producers: list[Any] = []
        self._totals: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"KafkaLog({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients; the log connects again when used."""
        with self._lock:
            for client in (*self._producers, self._admin):
                if client is not None:
                    client.close()
            self._producers, self._admin = [], None
            self._totals.clear()

    def create_topics(
        self, topics: Mapping[str, int], compacted: Collection[str] = (ITEMS,)
    ) -> None:
        """Create topics with the brokers' default replication; existing ones only ever grow."""
        for topic, total in topics.items():
            if total < 1:
                raise ConfigError(f"topic {topic}: {total} partitions; expected at least 1")
        found = self.topics()
        for topic, total in topics.items():
            if topic in found:
                self.add_partitions(topic, total)
                continue
            policy = {"cleanup.policy": "compact"} if topic in compacted else {}
            settings = {"num_partitions": total, "configs": TOPIC_SETTINGS | policy}
            try:
                self._create({topic: settings})
            except TopicAlreadyExistsError:
                self.add_partitions(topic, total)

    def _create(self, topics: Mapping[str, Mapping[str, Any]]) -> None:
        self._ask(lambda admin: admin.create_topics(topics, wait_for_metadata=True))

    def add_partitions(self, topic: str, total: int) -> None:
        """Enlarge a topic to `total` partitions."""
        if len(self._partitions([topic])[topic]) < total:
            self._ask(lambda admin: admin.create_partitions({topic: total}))
            self._ask(lambda admin: admin.wait_for_topics([topic]))
            self._totals.pop(topic, None)

    def topics(self) -> dict[str, int]:
        """Return each topic's number of partitions, the brokers' own topics left out."""
        found = self._ask(lambda admin: admin.describe_topics())
        return {
            topic["name"]: len(topic["partitions"])
            for topic in sorted(found, key=lambda topic: str(topic["name"]))
            if not topic["is_internal"]
        }

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Append all records; an error means that some may be durable and others not."""
        check_records(records)
        if not records:
            return
        total = self._recent_total(topic)
        try:
            producer = self._open_producer(topic, total)
            sent = [
                producer.send(
                    topic,
                    value=record.value,
                    key=record.key,
                    partition=partition_of(record.key, total),
                    timestamp_ms=record.ts,
                )
                for record in records
            ]
            producer.flush(APPEND_TIMEOUT_MS / 1000)
            for future in sent:
                future.get(0)
        except KafkaError as error:
            raise self._failed(error, f"not all records are in {topic}") from error

    def earliest(self, topic: str) -> Offsets:
        """Return the first offset that retention has left, by partition."""
        return self._offsets([topic], OffsetSpec.EARLIEST)[topic]

    def latest(self, topic: str) -> Offsets:
        """Return the last stable offset: records of open transactions lie behind it."""
        return self._offsets([topic], OffsetSpec.LATEST)[topic]

    def extent(self, topics: Collection[str]) -> Ranges:
        """Return `earliest` and `latest` of several topics, asked in three questions."""
        known = self._partitions(topics)
        first = self._offsets(topics, OffsetSpec.EARLIEST, known)
        last = self._offsets(topics, OffsetSpec.LATEST, known)
        return {t: {p: (first[t][p], last[t][p]) for p in known[t]} for t in topics}

    def offsets_at(self, topic: str, ts_ms: int) -> Offsets:
        """Return the first offset whose record has ts >= ts_ms; `latest` where there is none."""
        return self.positions_at([topic], ts_ms)[topic]

    def positions_at(self, topics: Collection[str], ts_ms: int) -> dict[str, Offsets]:
        """Return `offsets_at` of several topics, asked in three questions."""
        known = self._partitions(topics)
        last = self._offsets(topics, OffsetSpec.LATEST, known)
        found = self._offsets(topics, max(0, ts_ms), known)
        return {
            topic: {
                p: min(found[topic][p], end) if found[topic][p] >= 0 else end
                for p, end in ends.items()
            }
            for topic, ends in last.items()
        }

    def read(
        self,
        topic: str,
        ranges: Mapping[int, tuple[int, int]],
        batch_records: int = 10_000,
    ) -> Iterator[pa.Table]:
        """Yield the records of [start, end), partitions mixed."""
        for _, table in self.read_topics({topic: dict(ranges)}, batch_records):
            yield table

    def read_topics(
        self, ranges: Ranges, batch_records: int = 10_000
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield the records of several topics as (topic, table), through one consumer."""
        wanted = non_empty(ranges)
        deadline, started = time.monotonic() + CONNECT_TIMEOUT_MS / 1000, False
        while wanted:
            try:
                for part in read_ranges(self._address, wanted, batch_records):
                    started = True
                    yield part
                return
            except UnknownPartition as error:
                for topic, spans in wanted.items():
                    check_ranges(topic, spans, self.earliest(topic), self.latest(topic))
                if started or time.monotonic() > deadline:
                    raise LogUnavailable(f"{self.url}: {error} does not get ready") from error
            time.sleep(0.1)

    def follow(
        self, offsets: Mapping[str, Offsets], stop: threading.Event, poll_s: float = 0.02
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table) from these offsets on until `stop` is set."""
        for topic, given in offsets.items():
            check_positions(topic, given, self.latest(topic))
        yield from Tail(self._address, offsets, self.earliest, poll_s).tables(stop)

    def _offsets(
        self, topics: Collection[str], spec: Any, known: Mapping[str, range] | None = None
    ) -> dict[str, Offsets]:
        known = self._partitions(topics) if known is None else known
        asked = {TopicPartition(topic, p): spec for topic, parts in known.items() for p in parts}
        found = self._ask(lambda admin: admin.list_partition_offsets(asked, _READ_COMMITTED))
        return {
            topic: {p: found[TopicPartition(topic, p)].offset for p in parts}
            for topic, parts in known.items()
        }

    def _partitions(self, topics: Collection[str]) -> dict[str, range]:
        found = self._ask(lambda admin: admin.describe_topics(list(topics)))
        known = {topic["name"]: range(len(topic["partitions"])) for topic in found}
        if missing := [topic for topic in topics if not known.get(topic)]:
            names = ", ".join(self.topics()) or "none yet"
            raise TopicMissing(f"{self.url} has no topic {missing[0]!r}; it has {names}")
        return {topic: known[topic] for topic in topics}

    def _ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """Put a question to the brokers, again with a new connection while that may help."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_MS / 1000
        while True:
            try:
                with self._lock:
                    return question(self._open_admin())
            except TopicAlreadyExistsError:
                raise
            except KafkaError as error:
                if not isinstance(error, RetriableError) or time.monotonic() > deadline:
                    raise self._failed(error, "no answer") from error
            with self._lock:
                if self._admin is not None:
                    self._admin.close()
                    self._admin = None
            time.sleep(0.1)

    def _open_admin(self) -> Any:
        if self._admin is None:
            self._admin = KafkaAdminClient(
                **self._address.python_settings(), bootstrap_timeout_ms=CONNECT_TIMEOUT_MS
            )
        return self._admin

    def _recent_total(self, topic: str) -> int:
        """Return the number of partitions as it was at most a second ago."""
        now = time.monotonic()
        with self._lock:
            asked, total = self._totals.get(topic, (-inf, 0))
            if now - asked > NEW_PARTITIONS_EVERY_S:
                total = len(self._partitions([topic])[topic])
                self._totals[topic] = (now, total)
            return total

    def _open_producer(self, topic: str, total: int) -> Any:
        """Return a producer that knows all partitions; an older one may still be in use."""
        with self._lock:
            known = self._producers[-1].partitions_for(topic) if self._producers else ()
            if len(known) < total:
                producer = KafkaProducer(
                    **self._address.python_settings(),
                    bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
                    acks="all",
                    enable_idempotence=True,
                    batch_size=256 << 10,
                    max_request_size=MAX_MESSAGE_BYTES,
                    max_block_ms=APPEND_TIMEOUT_MS,
                    delivery_timeout_ms=APPEND_TIMEOUT_MS,
                    allow_auto_create_topics=False,
                )
                self._producers.append(producer)
            return self._producers[-1]

    def _failed(self, error: KafkaError, what: str) -> LogError:
        text = f"{self.url}: {what}: {error}"
        if isinstance(error, RetriableError):
            return LogUnavailable(f"{text}; is a broker running there? (make kafka starts one)")
        return LogError(text)
