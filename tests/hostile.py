"""Doubles that wrap a real log, a disk and an object store, and misbehave as the real ones do.

All mischief is drawn from a seed.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.memory import MemoryFileSystem

from ray_rec.errors import LogError, LogUnavailable
from ray_rec.events.schema import ITEMS, Record
from ray_rec.log.base import EventLog, Offsets, Ranges

Answer = TypeVar("Answer")


class HostileLog:
    """An EventLog around a real one: slow, failing, repeating itself, and mixing partitions.

    A failing `append` has written nothing, a part, or everything: as its contract says, nobody
    knows. Appended records may come twice. `read` and `follow` keep the order within a partition,
    cut tables anywhere, and may break off in the middle.

    Args:
        log: what is wrapped.
        seed: of the mischief.
        failing: share of calls that raise.
        repeating: share of appended records that are written twice.
        slow_s: longest pause before an answer.
    """

    def __init__(
        self,
        log: EventLog,
        seed: int = 0,
        failing: float = 0.3,
        repeating: float = 0.2,
        slow_s: float = 0.002,
    ) -> None:
        self._log, self._rng, self.url = log, random.Random(seed), log.url
        self._failing, self._repeating, self._slow_s = failing, repeating, slow_s
        self._lock = threading.Lock()
        self.failures = 0

    def create_topics(
        self, topics: Mapping[str, int], compacted: Collection[str] = (ITEMS,)
    ) -> None:
        self._misbehave()
        self._log.create_topics(topics, compacted)

    def topics(self) -> dict[str, int]:
        self._misbehave()
        return self._log.topics()

    def append(self, topic: str, records: Sequence[Record]) -> None:
        written = list(records)
        if self._fails():
            self._log.append(topic, written[: self._rng.randint(0, len(written))])
            raise LogUnavailable("the log went away; what was written is not known")
        twice = [r for r in written for _ in range(1 + (self._draw() < self._repeating))]
        self._log.append(topic, twice)

    def earliest(self, topic: str) -> Offsets:
        self._misbehave()
        return self._log.earliest(topic)

    def latest(self, topic: str) -> Offsets:
        self._misbehave()
        return self._log.latest(topic)

    def extent(self, topics: Collection[str]) -> Ranges:
        self._misbehave()
        return self._log.extent(topics)

    def positions_at(self, topics: Collection[str], ts_ms: int) -> dict[str, Offsets]:
        self._misbehave()
        return self._log.positions_at(topics, ts_ms)

    def offsets_at(self, topic: str, ts_ms: int) -> Offsets:
        self._misbehave()
        return self._log.offsets_at(topic, ts_ms)

    def read(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], batch_records: int = 10_000
    ) -> Iterator[pa.Table]:
        self._misbehave()
        yield from self._mixed(list(self._log.read(topic, ranges, batch_records)))

    def read_topics(
        self, ranges: Ranges, batch_records: int = 10_000
    ) -> Iterator[tuple[str, pa.Table]]:
        topics = list(ranges)
        self._rng.shuffle(topics)
        for topic in topics:
            for table in self.read(topic, ranges[topic], batch_records):
                yield topic, table

    def follow(
        self, offsets: Mapping[str, Offsets], stop: threading.Event, poll_s: float = 0.02
    ) -> Iterator[tuple[str, pa.Table]]:
        self._misbehave()
        for topic, table in self._log.follow(offsets, stop, poll_s):
            for piece in self._mixed([table]):
                yield topic, piece

    def add_partitions(self, topic: str, total: int) -> None:
        self._misbehave()
        self._log.add_partitions(topic, total)

    def close(self) -> None:
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _mixed(self, tables: list[pa.Table]) -> Iterator[pa.Table]:
        """Yield pieces of these tables, partitions in any order, each in its own."""
        queues = [_pieces(rows, self._rng) for rows in _by_partition(tables)]
        while queues := [queue for queue in queues if queue]:
            yield self._rng.choice(queues).pop(0)
            self._misbehave()

    def _misbehave(self) -> None:
        if self._fails():
            raise self._rng.choice([LogError, LogUnavailable])("the log is having a bad day")

    def _fails(self) -> bool:
        time.sleep(self._draw() * self._slow_s)
        fails = self._draw() < self._failing
        self.failures += fails
        return fails

    def _draw(self) -> float:
        with self._lock:
            return self._rng.random()


def _by_partition(tables: list[pa.Table]) -> list[pa.Table]:
    if not tables:
        return []
    rows = pa.concat_tables(tables)
    return [
        rows.filter(pc.equal(rows["partition"], partition))
        for partition in pc.unique(rows["partition"]).to_pylist()
    ]


def _pieces(rows: pa.Table, rng: random.Random) -> list[pa.Table]:
    cuts = sorted(rng.randint(1, rows.num_rows) for _ in range(3))
    places = zip([0, *cuts], [*cuts, rows.num_rows], strict=True)
    return [rows.slice(start, end - start) for start, end in places if end > start]


class Crash(BaseException):
    """The process dies here: nothing after it runs, and what was written stays as it is."""


class HostileWrites:
    """What disks and object stores have in common: slow, and from some write on they `fail`."""

    def __init__(self) -> None:
        self._good_left: int | None = None
        self._error: BaseException = OSError()
        self.slow_s = 0.0

    def fail(self, after: int, error: BaseException) -> None:
        """Do `after` more writes well; then raise `error`, each time."""
        self._good_left, self._error = after, error

    def mend(self) -> None:
        """Do every write well from now on."""
        self._good_left = None

    def write(self, well: Callable[[], object], badly: Callable[[], object]) -> None:
        time.sleep(self.slow_s)
        if self._good_left == 0:
            badly()
            raise self._error
        self._good_left = None if self._good_left is None else self._good_left - 1
        well()


class TornDisk(HostileWrites):
    """A disk on which the file that fails is written by half.

    Put `write_synced` in the place of `ray_rec.registry.store._write_synced`.
    """

    def __init__(self, write: Callable[[Path, bytes], None]) -> None:
        super().__init__()
        self._write = write

    def write_synced(self, path: Path, data: bytes) -> None:
        self.write(
            lambda: self._write(path, data), lambda: path.write_bytes(data[: len(data) // 2])
        )


class HostileObjects(MemoryFileSystem):
    """An object store: each object is whole or not there, and `writes` says which.

    `late`: what fails has been stored all the same, only the answer is lost.
    """

    protocol = "hostile"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    writes = HostileWrites()
    late = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("hostile://"))
        return stripped

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        put = super().pipe_file
        self.writes.write(
            lambda: put(path, value, **kwargs),
            lambda: put(path, value, **kwargs) if self.late else None,
        )


def until_done(call: Callable[[], Answer], error: type[Exception], most: int = 1000) -> Answer:
    """Return what `call` returns, asking again after each `error`."""
    for _ in range(most):
        try:
            return call()
        except error:
            continue
    raise AssertionError(f"it failed {most} times")
