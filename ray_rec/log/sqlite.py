"""A log in one SQLite file, for one host: several processes may write and read at once.

WAL with synchronous=FULL: what `append` has accepted survives a crash of the machine.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from ray_rec.errors import ConfigError, LogError, TopicMissing
from ray_rec.events.schema import ITEMS, Record
from ray_rec.log import sqlite_file as file
from ray_rec.log.base import (
    URL_EXAMPLES,
    Offsets,
    Ranges,
    check_positions,
    check_ranges,
    check_records,
)
from ray_rec.log.partition import by_partition

_Partitions = dict[int, tuple[int, int, int]]
"""Partition to its row, next offset and largest time."""


class SqliteLog:
    """An EventLog in one file (three slashes: relative path, four: absolute).

    The file is made by `create_topics`; everything else wants it to exist.
    """

    def __init__(self, url: str) -> None:
        name = url.removeprefix("sqlite:///")
        if name == url or not name or name == ":memory:":
            raise ConfigError(f"log URL {url!r} names no file; expected {URL_EXAMPLES}")
        self.path = Path(name).absolute()
        self.url = f"sqlite:///{self.path}"
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SqliteLog({self.url!r})"

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
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()

    def create_topics(
        self, topics: Mapping[str, int], compacted: Collection[str] = (ITEMS,)
    ) -> None:
        """Create the file and its topics; existing topics only ever grow."""
        for topic, total in topics.items():
            if total < 1:
                raise ConfigError(f"topic {topic}: {total} partitions; expected at least 1")
        with self._write(create=True) as db:
            rows = [(topic, topic in compacted) for topic in topics]
            db.executemany("INSERT OR IGNORE INTO topics VALUES (?, ?)", rows)
            for topic, total in topics.items():
                file.enlarge(db, topic, total)

    def add_partitions(self, topic: str, total: int) -> None:
        """Enlarge a topic to `total` partitions."""
        self._partitions(topic)
        with self._write() as db:
            file.enlarge(db, topic, total)

    def topics(self) -> dict[str, int]:
        """Return each topic's number of partitions."""
        with self._read() as db:
            query = "SELECT topic, count(*) FROM partitions GROUP BY topic ORDER BY topic"
            return dict(db.execute(query).fetchall())

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Append all records in one transaction: all of them, or none and an error."""
        check_records(records)
        if not records:
            return
        with self._write() as db:
            partitions = self._partitions(topic)
            for partition, group in by_partition(records, len(partitions)).items():
                file.insert(db, partitions[partition][0], group)

    def earliest(self, topic: str) -> Offsets:
        """Return 0 for each partition: nothing is ever deleted but by `compact`."""
        return dict.fromkeys(self._partitions(topic), 0)

    def latest(self, topic: str) -> Offsets:
        """Return the next offset of each partition."""
        return {partition: end for partition, (_, end, _) in self._partitions(topic).items()}

    def extent(self, topics: Collection[str]) -> Ranges:
        """Return [0, next offset) of each partition."""
        return {topic: {p: (0, end) for p, end in self.latest(topic).items()} for topic in topics}

    def offsets_at(self, topic: str, ts_ms: int) -> Offsets:
        """Return the first offset whose record has ts >= ts_ms; `latest` where there is none."""
        partitions = self._partitions(topic)
        with self._read() as db:
            return {
                partition: end if max_ts < ts_ms else file.offset_at(db, row, end, ts_ms)
                for partition, (row, end, max_ts) in partitions.items()
            }

    def positions_at(self, topics: Collection[str], ts_ms: int) -> dict[str, Offsets]:
        """Return `offsets_at` of each topic."""
        return {topic: self.offsets_at(topic, ts_ms) for topic in topics}

    def read(
        self,
        topic: str,
        ranges: Mapping[int, tuple[int, int]],
        batch_records: int = 10_000,
    ) -> Iterator[pa.Table]:
        """Yield the records of [start, end), partition after partition."""
        partitions = self._partitions(topic)
        latest = {partition: end for partition, (_, end, _) in partitions.items()}
        wanted = check_ranges(topic, ranges, dict.fromkeys(partitions, 0), latest)
        for partition, (start, end) in wanted.items():
            place = (partition, partitions[partition][0])
            # One query a batch: an open cursor would keep the write-ahead file from shrinking.
            while start < end:
                with self._read() as db:
                    table = file.fetch(db, place, (start, end), batch_records)
                if not table.num_rows:
                    break
                start = int(table["offset"][-1].as_py() or 0) + 1
                yield table

    def read_topics(
        self, ranges: Ranges, batch_records: int = 10_000
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table), topic after topic."""
        for topic, spans in ranges.items():
            for table in self.read(topic, spans, batch_records):
                yield topic, table

    def follow(
        self, offsets: Mapping[str, Offsets], stop: threading.Event, poll_s: float = 0.02
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (topic, table) from these offsets on until `stop` is set."""
        positions = {topic: dict(given) for topic, given in offsets.items()}
        for topic, position in positions.items():
            check_positions(topic, position, self.latest(topic))
        while not stop.is_set():
            quiet = True
            for topic, position in positions.items():
                latest = self.latest(topic)
                for table in self.read(topic, _behind(position, latest)):
                    if stop.is_set():
                        return
                    quiet = False
                    yield topic, table
                position.update(latest)
            if quiet:
                stop.wait(poll_s)

    def compact(self, topic: str) -> int:
        """Keep only the last record of each key; return how many were removed.

        Offsets stay, with holes. Kafka does this by itself; here it is an operator's choice.
        """
        with self._write() as db:
            partitions = self._partitions(topic).values()
            return sum(file.compact(db, row, end) for row, end, _ in partitions)

    def _partitions(self, topic: str) -> _Partitions:
        query = "SELECT partition, id, next_offset, max_ts FROM partitions WHERE topic = ?"
        with self._read() as db:
            rows = db.execute(f"{query} ORDER BY partition", (topic,)).fetchall()
        if not rows:
            known = ", ".join(self.topics()) or "none yet"
            raise TopicMissing(f"{self.url} has no topic {topic!r}; it has {known}")
        return {partition: (row, end, max_ts) for partition, row, end, max_ts in rows}

    @contextmanager
    def _write(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        db = self._connection(create)
        try:
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db
        except sqlite3.Error as error:
            raise LogError(f"{self.url}: nothing was written: {error}") from error

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise LogError(f"{self.url} cannot be read: {error}") from error

    def _connection(self, create: bool = False) -> sqlite3.Connection:
        """Return this thread's connection."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = file.connect(self.path, create)
            with self._lock:
                self._open.append(db)
        return db


def _behind(position: Offsets, latest: Offsets) -> dict[int, tuple[int, int]]:
    return {partition: (position.get(partition, 0), end) for partition, end in latest.items()}
