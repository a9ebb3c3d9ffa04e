"""Put records of a log or an archive into a log again: as fast as it goes, or at a chosen pace.

Records keep their bytes, keys and times. All ranges are merged by record time, each partition in
its own order; `speed` 1 is the original pace, 60 a minute a second, 0 no waiting at all.
"""

import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from ray_rec.errors import ConfigError
from ray_rec.events.parse import decode_one
from ray_rec.events.schema import DEAD_LETTER, DeadLetter, Record
from ray_rec.log.base import EventLog, Offsets, Ranges

BATCH_RECORDS = 5_000


class Readable(Protocol):
    """What can be replayed: an EventLog or an Archive."""

    def earliest(self, topic: str) -> Offsets:
        """Return the first offset, by partition."""

    def latest(self, topic: str) -> Offsets:
        """Return the offset after the last one, by partition."""

    def read(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], batch_records: int = 10_000
    ) -> Iterator[pa.Table]:
        """Yield the records of [start, end)."""


@dataclass
class Replayed:
    """What a replay has done so far: records appended by target topic, and their latest time."""

    records: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    last_ts: int | None = None

    @property
    def total(self) -> int:
        """Number of records appended."""
        return sum(self.records.values())


class _Due(NamedTuple):
    """A record and where it goes; ordered by time, then source topic, partition, offset."""

    ts: int
    source: str
    partition: int
    offset: int
    target: str
    record: Record


def replay(
    source: Readable,
    target: EventLog,
    topics: Mapping[str, str],
    ranges: Ranges | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    speed: float = 0.0,
    stop: threading.Event | None = None,
    on_progress: Callable[[Replayed], None] | None = None,
) -> Replayed:
    """Append records of `topics` (source topic to target topic) to `target`.

    Args:
        ranges: offsets to take; for topics it does not name, all that is there now.
        start_ms: take only records with ts >= start_ms.
        end_ms: take only records with ts < end_ms.
        speed: record time per wall time; 0 does not wait.
        stop: ends the replay after the batch at hand.
        on_progress: called after each batch.
    """
    if speed < 0:
        raise ConfigError(f"speed is {speed}; expected 0 (no waiting) or a positive factor")
    _check_targets(target, topics.values())
    taken = ranges or {}
    streams = [
        _stream(source, (topic, aim), partition, span, (start_ms or 0, end_ms))
        for topic, aim in topics.items()
        for partition, span in (taken.get(topic) or _all(source, topic)).items()
    ]
    due = heapq.merge(*streams)
    return _append(due, target, _Pace(speed), stop or threading.Event(), on_progress)


def replay_dead_letters(
    log: EventLog,
    ranges: Mapping[int, tuple[int, int]] | None = None,
    reasons: Collection[str] | None = None,
) -> Replayed:
    """Put dead letters back to the topics they came from, each once; return what was done.

    Letters whose value is not kept (`too_large`) or whose reason is not asked for are skipped.
    """
    done = Replayed()
    seen: set[tuple[str, int, int]] = set()
    for table in log.read(DEAD_LETTER, ranges or _all(log, DEAD_LETTER)):
        batch: dict[str, list[Record]] = {}
        for value in table["value"].to_pylist():
            letter = decode_one(DEAD_LETTER, value)
            if not isinstance(letter, DeadLetter) or letter.reason == "too_large":
                done.skipped += 1
                continue
            place = (letter.topic, letter.partition, letter.offset)
            if place in seen or (reasons is not None and letter.reason not in reasons):
                done.skipped += 1
                continue
            seen.add(place)
            record = Record(letter.key, letter.value, letter.ts)
            batch.setdefault(letter.topic, []).append(record)
        _write(log, batch, done)
    return done


def _check_targets(target: EventLog, topics: Collection[str]) -> None:
    known = target.topics()
    for topic in topics:
        if topic not in known:
            target.latest(topic)  # raises TopicMissing with the topics that exist


def _all(source: Readable, topic: str) -> dict[int, tuple[int, int]]:
    latest = source.latest(topic)
    return {p: (first, latest[p]) for p, first in source.earliest(topic).items()}


def _stream(
    source: Readable,
    topics: tuple[str, str],
    partition: int,
    span: tuple[int, int],
    times: tuple[int, int | None],
) -> Iterator[_Due]:
    """Yield one partition's records in order; a time that falls is lifted to the last one."""
    latest = 0
    for table in source.read(topics[0], {partition: span}):
        stamps = table["ts"].to_numpy()
        inside = stamps >= times[0]
        if times[1] is not None:
            inside &= stamps < times[1]
        table = table.filter(pa.array(inside))
        names = ("ts", "offset", "key", "value")
        columns = (table[name].to_pylist() for name in names)
        for ts, offset, key, value in zip(*columns, strict=True):
            latest = max(latest, ts)
            record = Record(key, value, ts)
            yield _Due(latest, topics[0], partition, offset, topics[1], record)


class _Pace:
    """Says how long to wait before a record is due."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: tuple[float, int] | None = None

    def wait_s(self, ts_ms: int) -> float:
        if not self._speed:
            return 0.0
        if self._start is None:
            self._start = (time.monotonic(), ts_ms)
        started, first_ms = self._start
        return started + (ts_ms - first_ms) / 1000 / self._speed - time.monotonic()


def _append(
    due: Iterator[_Due],
    target: EventLog,
    pace: _Pace,
    stop: threading.Event,
    on_progress: Callable[[Replayed], None] | None,
) -> Replayed:
    done = Replayed()
    batch: dict[str, list[Record]] = {}
    size = 0

    def flush() -> None:
        _write(target, batch, done)
        batch.clear()
        if on_progress is not None:
            on_progress(done)

    for one in due:
        wait_s = pace.wait_s(one.ts)
        if size and (size >= BATCH_RECORDS or wait_s > 0):
            flush()
            size = 0
        if stop.wait(wait_s) if wait_s > 0 else stop.is_set():
            return done
        batch.setdefault(one.target, []).append(one.record)
        size += 1
    if size:
        flush()
    return done


def _write(target: EventLog, batch: Mapping[str, list[Record]], done: Replayed) -> None:
    for topic, records in batch.items():
        target.append(topic, records)
        done.records[topic] = done.records.get(topic, 0) + len(records)
        done.last_ts = max(done.last_ts or 0, *(record.ts for record in records))
