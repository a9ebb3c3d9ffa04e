"""What a log is: one interface over SQLite and Kafka, chosen by URL.

Offsets are dense per partition when written, may have holes when read (compaction, transaction
markers), and never change. A record lies in partition murmur2(key) mod number of partitions.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from ray_rec.errors import ConfigError, LogError, OffsetGap, TopicMissing
from ray_rec.events.schema import CONTROLS, DEAD_LETTER, EVENTS, EXPOSURES, ITEMS, Record

Offsets = dict[int, int]
"""Partition to offset."""

Ranges = dict[str, dict[int, tuple[int, int]]]
"""Topic to partition to [start, end)."""

STANDARD_TOPICS = (EVENTS, ITEMS, EXPOSURES, CONTROLS, DEAD_LETTER)
CO_PARTITIONED = (EVENTS, EXPOSURES, CONTROLS)
"""Topics keyed by user: with equal partition counts one user's records meet in one place."""

MAX_VALUE_BYTES = 8 << 20
"""Longest value that `append` takes: on every log the same, so that replays fit."""

URL_EXAMPLES = "sqlite:///var/log.db, sqlite:////absolute/path/log.db or kafka://host:9092"


class EventLog(Protocol):
    """Topics of keyed records, readable by offset. Safe to use from several threads."""

    url: str

    def create_topics(
        self, topics: Mapping[str, int], compacted: Collection[str] = (ITEMS,)
    ) -> None:
        """Create topics with these numbers of partitions; existing ones only ever grow."""

    def topics(self) -> dict[str, int]:
        """Return each topic's number of partitions."""

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Append all records, in order per key; returns when they are durable.

        An error means that not all are known to be durable: append again (readers drop duplicates).
        """

    def earliest(self, topic: str) -> Offsets:
        """Return the first offset that can be read, by partition."""

    def latest(self, topic: str) -> Offsets:
        """Return the offset that the next readable record will have, by partition."""

    def extent(self, topics: Collection[str]) -> Ranges:
        """Return [earliest, latest) of several topics at once."""

    def offsets_at(self, topic: str, ts_ms: int) -> Offsets:
        """Return the first offset whose record has ts >= ts_ms; `latest` where there is none."""

    def positions_at(self, topics: Collection[str], ts_ms: int) -> dict[str, Offsets]:
        """Return `offsets_at` of several topics at once."""

    def read(
        self,
        topic: str,
        ranges: Mapping[int, tuple[int, int]],
        batch_records: int = 10_000,
    ) -> Iterator[pa.Table]:
        """Yield the records of [start, end) as tables of LOG_SCHEMA, in order per partition.

        Ends exactly at `end`, however the range's tail looks. Raises OffsetGap when retention has
        deleted `start`, LogError when the log ends before `end`.
        """

    def read_topics(
        self, ranges: Ranges, batch_records: int = 10_000
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table) as `read` would for each topic, topics in any order."""

    def follow(
        self, offsets: Mapping[str, Offsets], stop: threading.Event, poll_s: float = 0.02
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table) from these offsets on until `stop` is set.

        Partitions that `offsets` does not name, added later too, are read from their beginning.
        """

    def add_partitions(self, topic: str, total: int) -> None:
        """Enlarge a topic to `total` partitions; keys move, so readers re-shard their state."""

    def close(self) -> None:
        """Release connections; the log can be opened again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_log(url: str) -> EventLog:
    """Open the log at a URL: `sqlite:///file` or `kafka://host:port[,host:port]`.

    >>> open_log("mysql://x")
    Traceback (most recent call last):
    ...
    ray_rec.errors.ConfigError: log URL 'mysql://x' is not one of sqlite:///var/log.db, \
sqlite:////absolute/path/log.db or kafka://host:9092
    """
    if url.startswith("sqlite:"):
        from ray_rec.log.sqlite import SqliteLog

        return SqliteLog(url)
    if url.startswith("kafka:"):
        from ray_rec.log.kafka import KafkaLog

        return KafkaLog(url)
    raise ConfigError(f"log URL {url!r} is not one of {URL_EXAMPLES}")


def create_standard_topics(log: EventLog, partitions: int) -> None:
    """Create the five topics; `dead-letter` has one partition, the others `partitions`."""
    log.create_topics({t: 1 if t == DEAD_LETTER else partitions for t in STANDARD_TOPICS})
    check_topics(log)


def check_topics(log: EventLog) -> None:
    """Raise unless all standard topics exist and those keyed by user are partitioned alike."""
    found = log.topics()
    if missing := [topic for topic in STANDARD_TOPICS if topic not in found]:
        raise TopicMissing(
            f"{log.url} has no topic {', '.join(missing)}; "
            "create the standard topics first (ray-rec stream and ray-rec data load do)"
        )
    check_partitions(log.url, found)


def check_partitions(url: str, counts: Mapping[str, int]) -> None:
    """Raise LogError unless the topics keyed by user are partitioned alike."""
    found = {topic: counts[topic] for topic in CO_PARTITIONED}
    if len(set(found.values())) > 1:
        raise LogError(
            f"{url}: topics keyed by user must have equal numbers of partitions, found "
            f"{found}; add partitions to the smaller ones"
        )


def check_records(records: Sequence[Record]) -> None:
    """Raise LogError for records that not every log could hold."""
    for record in records:
        if record.ts < 0:
            raise LogError(f"record time {record.ts} is negative; expected ms since 1970")
        if record.value is not None and len(record.value) > MAX_VALUE_BYTES:
            raise LogError(
                f"value of {len(record.value)} bytes; at most {MAX_VALUE_BYTES} are allowed"
            )


def non_empty(ranges: Ranges) -> Ranges:
    """Return the topics and partitions that have an offset to read."""
    kept = {t: {p: span for p, span in by.items() if span[0] < span[1]} for t, by in ranges.items()}
    return {topic: by for topic, by in kept.items() if by}


def check_ranges(
    topic: str, ranges: Mapping[int, tuple[int, int]], earliest: Offsets, latest: Offsets
) -> dict[int, tuple[int, int]]:
    """Return the non-empty ranges; raise when one of them cannot be read in full."""
    wanted = {p: (start, end) for p, (start, end) in sorted(ranges.items()) if start < end}
    for partition, (start, end) in wanted.items():
        if partition not in latest:
            raise LogError(f"topic {topic} has no partition {partition}; it has {len(latest)}")
        if start < (first := earliest[partition]):
            raise gap(topic, partition, start, min(first, end))
        if end > latest[partition]:
            raise LogError(
                f"{topic}/{partition} ends at offset {latest[partition]}, but [{start}, {end}) "
                "was asked for; is this the log that the offsets came from?"
            )
    return wanted


def check_positions(topic: str, positions: Offsets, latest: Offsets) -> None:
    """Raise LogError for positions that lie behind the end of the log."""
    for partition, offset in positions.items():
        if offset > (end := latest.get(partition, 0)):
            raise LogError(
                f"{topic}/{partition} ends at offset {end}, but following from {offset} was asked "
                "for; is this the log that the offsets came from?"
            )


def gap(topic: str, partition: int, start: int, end: int) -> OffsetGap:
    """Return the error that names the offsets which are gone."""
    return OffsetGap(
        f"{topic}/{partition}: offsets [{start}, {end}) were deleted by retention; "
        "restore them from an archive, or start from a state that has them applied"
    )
