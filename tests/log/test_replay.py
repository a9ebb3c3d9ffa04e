"""Archive and replay: exact bytes, time order, pace, dead letters put back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_rec.errors import ConfigError, OffsetGap, TopicMissing
from ray_rec.events import DEAD_LETTER, EVENTS, Event, Reason, dead_letters, decode, encode
from ray_rec.log import EventLog, Record, create_standard_topics, open_log
from ray_rec.log.archive import Archive
from ray_rec.log.replay import Replayed, replay, replay_dead_letters


@pytest.fixture
def log(sqlite_url: str) -> Iterator[EventLog]:
    with open_log(sqlite_url) as opened:
        opened.create_topics({"a": 3, "b": 1, "copy": 1, "other": 2})
        yield opened


def rows(log: EventLog | Archive, topic: str) -> list[Record]:
    latest = log.latest(topic)
    spans = {p: (first, latest[p]) for p, first in log.earliest(topic).items()}
    columns = ("key", "value", "ts")
    return [
        Record(*(row[c] for c in columns))
        for table in log.read(topic, spans)
        for row in table.to_pylist()
    ]


def fill(log: EventLog, topic: str, times: list[int]) -> list[Record]:
    records = [Record(b"%d" % (ts % 7), b"%s-%d" % (topic.encode(), ts), ts) for ts in times]
    log.append(topic, records)
    return records


def test_partitions_and_topics_are_merged_by_time(log: EventLog) -> None:
    first = fill(log, "a", list(range(0, 200, 2)))
    second = fill(log, "b", list(range(1, 200, 2)))
    seen: list[int] = []
    done = replay(
        log, log, {"a": "copy", "b": "copy"}, on_progress=lambda now: seen.append(now.total)
    )
    assert rows(log, "copy") == sorted(first + second, key=lambda record: record.ts)
    assert (done.total, done.records, done.last_ts) == (200, {"copy": 200}, 199)
    assert seen == [200]


def test_offsets_and_times_choose_what_is_replayed(log: EventLog) -> None:
    fill(log, "b", list(range(100)))
    replay(log, log, {"b": "copy"}, ranges={"b": {0: (10, 60)}}, start_ms=30, end_ms=50)
    assert [record.ts for record in rows(log, "copy")] == list(range(30, 50))


def test_a_late_record_keeps_its_place_and_its_time(log: EventLog) -> None:
    records = fill(log, "b", [10, 30, 5, 40])
    replay(log, log, {"b": "copy"})
    assert rows(log, "copy") == records


def test_the_pace_is_kept(log: EventLog) -> None:
    fill(log, "b", [0, 200, 400, 600])
    start = time.monotonic()
    replay(log, log, {"b": "copy"}, speed=3)
    assert 0.2 <= time.monotonic() - start < 2
    assert len(rows(log, "copy")) == 4


def test_stop_ends_a_slow_replay(log: EventLog) -> None:
    fill(log, "b", [0, 1, 10_000_000])
    stop = threading.Event()

    def on_progress(now: Replayed) -> None:
        stop.set()

    done = replay(log, log, {"b": "copy"}, speed=1, stop=stop, on_progress=on_progress)
    assert done.total == len(rows(log, "copy")) < 3


def test_wrong_replays_are_refused(log: EventLog) -> None:
    with pytest.raises(ConfigError, match="speed is -1"):
        replay(log, log, {"a": "copy"}, speed=-1)
    with pytest.raises(TopicMissing, match="no topic 'typo'"):
        replay(log, log, {"a": "typo"})
    with pytest.raises(TopicMissing, match="no topic 'typo'"):
        replay(log, log, {"typo": "copy"})


def test_archive_gives_back_what_was_written(log: EventLog, tmp_path: Path) -> None:
    log.append("a", [Record(b"k", None, 1), Record(None, b"\xff\n", 2), Record(b"", b"", 3)])
    fill(log, "a", list(range(50)))
    archive = Archive(tmp_path / "archive")
    latest = log.latest("a")
    half = {p: end // 2 for p, end in latest.items()}
    first = {p: (0, end) for p, end in half.items()}
    second = {p: (half[p], end) for p, end in latest.items()}
    assert archive.write(log, "a", first) + archive.write(log, "a", second) == 53
    assert archive.write(log, "a", first) == 0
    assert archive.topics() == {"a": 3}
    assert (archive.earliest("a"), archive.latest("a")) == (log.earliest("a"), latest)
    assert rows(archive, "a") == rows(log, "a")
    some = {0: (half[0] - 1, half[0] + 2)}
    offsets = [o for t in archive.read("a", some) for o in t["offset"].to_pylist()]
    assert offsets == list(range(*some[0]))


def test_archive_names_what_it_lacks(log: EventLog, tmp_path: Path) -> None:
    fill(log, "b", list(range(9)))
    archive = Archive(tmp_path)
    archive.write(log, "b", {0: (0, 3)})
    archive.write(log, "b", {0: (5, 9)})
    with pytest.raises(OffsetGap, match=r"b/0 \[3, 7\) not archived"):
        list(archive.read("b", {0: (1, 7)}))
    with pytest.raises(TopicMissing, match="no archived topic 'a'"):
        archive.latest("a")


def test_archive_to_topic(log: EventLog, tmp_path: Path) -> None:
    records = fill(log, "b", list(range(20)))
    archive = Archive(tmp_path)
    archive.write(log, "b", {0: (0, 20)})
    replay(archive, log, {"b": "copy"})
    assert rows(log, "copy") == records


def test_dead_letters_go_back_once(sqlite_url: str) -> None:
    event = encode(Event(event_id="e", user_id="u", item_id="i", event_type="view", ts=5))
    bad = [Record(b"u", b"\xff", 7), Record(b"v", event, 8), Record(b"u", b"x" * (1 << 21), 9)]
    with open_log(sqlite_url) as log:
        create_standard_topics(log, 1)
        log.append(EVENTS, bad)
        dead = next(decode(EVENTS, raw).dead for raw in log.read(EVENTS, {0: (0, 3)}))
        for _ in range(2):  # a task that was repeated
            log.append(DEAD_LETTER, dead_letters(dead))
        done = replay_dead_letters(log, reasons=[Reason.KEY_MISMATCH])
        assert (done.records, done.skipped) == ({EVENTS: 1}, 5)
        done = replay_dead_letters(log, {0: (0, 3)})
        assert (done.records, done.skipped) == ({EVENTS: 2}, 1)
        assert rows(log, EVENTS)[3:] == [bad[1], *bad[:2]]
