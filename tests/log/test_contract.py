"""What every log promises, held against each of them with real files and a real broker."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ray_rec.errors import (
    ConfigError,
    LogError,
    LogUnavailable,
    OffsetGap,
    TopicMissing,
)
from ray_rec.log import (
    LOG_SCHEMA,
    STANDARD_TOPICS,
    EventLog,
    Record,
    check_topics,
    create_standard_topics,
    open_log,
)

_names = itertools.count()

LOGS = ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    with open_log(request.getfixturevalue(f"{request.param}_url")) as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    return f"topic-{os.getpid()}-{next(_names)}"


def record(key: str | None, value: str | None = "v", ts: int = 1) -> Record:
    return Record(key and key.encode(), value and value.encode(), ts)


def everything(log: EventLog, topic: str) -> dict[int, tuple[int, int]]:
    return {p: (log.earliest(topic)[p], end) for p, end in log.latest(topic).items()}


def read(log: EventLog, topic: str, ranges: dict[int, tuple[int, int]] | None = None) -> list[Any]:
    """(partition, offset, key, value, ts) of all records of the ranges."""
    tables = list(log.read(topic, everything(log, topic) if ranges is None else ranges))
    for table in tables:
        assert table.schema == LOG_SCHEMA
        assert table.num_rows
    rows = pa.concat_tables([LOG_SCHEMA.empty_table(), *tables]).to_pylist()
    return [(r["partition"], r["offset"], r["key"], r["value"], r["ts"]) for r in rows]


def test_order_per_key_and_dense_offsets(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 3})
    for start in range(0, 300, 100):
        log.append(topic, [record(f"u{i % 7}", str(i)) for i in range(start, start + 100)])
    rows = read(log, topic)
    for partition, end in log.latest(topic).items():
        assert [r[1] for r in rows if r[0] == partition] == list(range(end))
    for user in range(7):
        mine = [r for r in rows if r[2] == f"u{user}".encode()]
        assert len({r[0] for r in mine}) == 1
        assert [int(r[3]) for r in mine] == list(range(user, 300, 7))


def test_both_logs_put_a_key_in_the_partition_of_kafkas_java_clients(
    log: EventLog, topic: str
) -> None:
    log.create_topics({topic: 10})
    # murmur2 of Kafka's own UtilsTest: 21 -> -973932308, foobar -> -790332482
    log.append(topic, [record("21"), record("foobar"), record(None)])
    places = {key: partition for partition, _, key, _, _ in read(log, topic)}
    expected = {b"21": (-973932308 & 0x7FFFFFFF) % 10, b"foobar": (-790332482 & 0x7FFFFFFF) % 10}
    assert places == {**expected, None: 0}


def test_exact_bounds_and_empty_ranges(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [record("u", str(i)) for i in range(50)])
    assert [r[1] for r in read(log, topic, {0: (7, 31)})] == list(range(7, 31))
    assert [r[1] for r in read(log, topic, {0: (49, 50)})] == [49]
    assert read(log, topic, {0: (5, 5)}) == []
    assert read(log, topic, {0: (50, 50)}) == []
    assert read(log, topic, {}) == []
    sizes = [t.num_rows for t in log.read(topic, {0: (0, 50)}, batch_records=8)]
    assert sum(sizes) == 50
    assert max(sizes) <= 8


def test_ranges_beyond_the_end_are_refused(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [record("u")])
    with pytest.raises(LogError, match=r"ends at offset 1, but \[0, 2\)"):
        read(log, topic, {0: (0, 2)})
    with pytest.raises(LogError, match="no partition 5"):
        read(log, topic, {5: (0, 1)})
    with pytest.raises(LogError, match="following from 9"):
        next(log.follow({topic: {0: 9}}, threading.Event()))


def test_several_topics_are_asked_and_read_at_once(log: EventLog, topic: str) -> None:
    other, silent = f"{topic}-b", f"{topic}-c"
    log.create_topics({topic: 2, other: 3, silent: 1})
    log.append(topic, [record(f"u{i}", str(i)) for i in range(40)])
    log.append(other, [record(f"u{i}", str(i)) for i in range(60)])
    extent = log.extent([topic, other, silent])
    assert extent == {t: everything(log, t) for t in (topic, other, silent)}
    found: dict[str, list[tuple[int, int]]] = {topic: [], other: []}
    ranges = {**extent, topic: {p: (3, end) for p, (_, end) in extent[topic].items()}}
    for name, table in log.read_topics(ranges, batch_records=7):
        assert table.schema == LOG_SCHEMA
        assert 0 < table.num_rows <= 7
        columns = (table[c].to_pylist() for c in ("partition", "offset"))
        found[name] += zip(*columns, strict=True)
    for name, places in found.items():
        for p, (start, end) in ranges[name].items():
            assert [o for partition, o in places if partition == p] == list(range(start, end))
    with pytest.raises(TopicMissing, match=f"no topic '{topic}-typo'"):
        log.extent([topic, f"{topic}-typo"])
    with pytest.raises(TopicMissing, match=f"no topic '{topic}-typo'"):
        list(log.read_topics({topic: extent[topic], f"{topic}-typo": {0: (0, 1)}}))


def test_unicode_null_empty_and_times(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    records = [
        record("ключ-鍵-🔑", '{"title": "Čaj 茶 🍵"}', 1),
        record("k", None, 1_500_000_000_000),
        Record(b"k", b"", 0),
        Record(b"", b"\x00\xff\n\x00", 99_999_999_999_999),
        Record(None, b"no key", 7),
    ]
    log.append(topic, records)
    assert [Record(*row[2:]) for row in read(log, topic)] == records


def test_records_of_one_megabyte(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 2})
    large = [Record(b"%d" % i, os.urandom(1 << 20), i) for i in range(40)]
    log.append(topic, large)
    assert sorted(Record(*r[2:]) for r in read(log, topic)) == sorted(large)


def test_records_that_no_log_could_hold(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    with pytest.raises(LogError, match="at most 8388608"):
        log.append(topic, [record("a"), Record(b"b", b"x" * (8 << 20 | 1), 1)])
    with pytest.raises(LogError, match="negative"):
        log.append(topic, [record("a", ts=-1)])
    log.append(topic, [])
    assert log.latest(topic) == {0: 0}
    log.append(topic, [Record(b"b", b"x" * (8 << 20), 1)])
    assert len(read(log, topic)) == 1


def test_offsets_at_a_time(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    assert log.offsets_at(topic, 5) == {0: 0}
    times = [10, 20, 20, 15, 40, 30]
    log.append(topic, [record("u", ts=ts) for ts in times])
    found = {ts: log.offsets_at(topic, ts)[0] for ts in (0, 10, 11, 20, 21, 40, 41)}
    assert found == {0: 0, 10: 0, 11: 1, 20: 1, 21: 4, 40: 4, 41: 6}


def test_offsets_at_a_time_in_a_long_topic(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    for start in range(0, 9000, 1500):
        log.append(topic, [record("u", ts=1000 + i) for i in range(start, start + 1500)])
    for ts in (999, 1000, 1001, 2023, 2024, 2025, 5000, 9999, 10_000):
        assert log.offsets_at(topic, ts) == {0: min(9000, max(0, ts - 1000))}


def test_topics_only_grow(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 2})
    log.create_topics({topic: 1})
    assert log.topics()[topic] == 2
    log.create_topics({topic: 3})
    log.add_partitions(topic, 2)
    assert log.topics()[topic] == 3
    assert log.earliest(topic) == log.latest(topic) == {0: 0, 1: 0, 2: 0}
    with pytest.raises(ConfigError, match="at least 1"):
        log.create_topics({topic: 0})


def test_missing_topics_are_named(log: EventLog, topic: str) -> None:
    log.create_topics({f"{topic}-other": 1})
    missing = f"{topic}-typo"
    for call in (
        lambda: log.append(missing, [record("u")]),
        lambda: log.latest(missing),
        lambda: log.earliest(missing),
        lambda: log.offsets_at(missing, 1),
        lambda: list(log.read(missing, {0: (0, 1)})),
        lambda: log.add_partitions(missing, 2),
        lambda: next(log.follow({missing: {}}, threading.Event())),
    ):
        with pytest.raises(TopicMissing, match=f"no topic '{missing}'; it has .*{topic}-other"):
            call()


class Follower:
    """Collects what a follower yields, in a thread."""

    def __init__(self, log: EventLog, offsets: dict[str, dict[int, int]]) -> None:
        self.rows: list[tuple[str, int, int, bytes]] = []
        self.stop = threading.Event()
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(log, offsets))

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert not self._failure

    def _run(self, log: EventLog, offsets: dict[str, dict[int, int]]) -> None:
        try:
            for topic, table in log.follow(offsets, self.stop):
                columns = (table[c].to_pylist() for c in ("partition", "offset", "value"))
                self.rows += [(topic, *row) for row in zip(*columns, strict=True)]
        except BaseException as error:
            self._failure.append(error)
            raise

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 15
        while len(self.rows) < count:
            assert not self._failure
            assert time.monotonic() < deadline, f"{len(self.rows)} of {count} records came"
            time.sleep(0.002)


def test_follow_goes_on_from_offsets(log: EventLog, topic: str) -> None:
    other = f"{topic}-b"
    log.create_topics({topic: 1, other: 2})
    log.append(topic, [record("u", str(i)) for i in range(5)])
    with Follower(log, {topic: {0: 3}, other: {}}) as follower:
        follower.wait_for(2)
        log.append(other, [record("x", "new")])
        follower.wait_for(3)
        log.append(topic, [record("u", "5")])
        follower.wait_for(4)
    mine = [row for row in follower.rows if row[0] == topic]
    assert mine == [(topic, 0, 3, b"3"), (topic, 0, 4, b"4"), (topic, 0, 5, b"5")]


def test_follow_is_quick(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    waits = []
    with Follower(log, {topic: {}}) as follower:
        for i in range(10):
            start = time.monotonic()
            log.append(topic, [record("u")])
            follower.wait_for(i + 1)
            waits.append(time.monotonic() - start)
    assert sorted(waits)[5] < 0.5  # some 20 ms on an idle machine


def test_a_partition_added_later(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [record(f"u{i}") for i in range(20)])
    with Follower(log, {topic: log.latest(topic)}) as follower:
        with open_log(log.url) as elsewhere:
            elsewhere.add_partitions(topic, 4)
            elsewhere.append(topic, [record(f"u{i}", "new") for i in range(20)])
        follower.wait_for(20)
    latest = log.latest(topic)
    assert set(latest) == {0, 1, 2, 3}
    assert latest[0] > 20
    assert sum(latest.values()) == 40
    assert sorted((p, o) for _, p, o, _ in follower.rows) == sorted(
        (p, o) for p, end in latest.items() for o in range(20 if p == 0 else 0, end)
    )
    assert len(read(log, topic)) == 40
    with open_log(log.url) as elsewhere:
        elsewhere.append(topic, [record(f"u{i}", "again") for i in range(20)])
    where = {key: partition for partition, _, key, value, _ in read(log, topic) if value == b"new"}
    again = {key: p for p, _, key, value, _ in read(log, topic) if value == b"again"}
    assert where == again


def _append_many(url: str, topic: str, writer: int, batches: int) -> None:
    with open_log(url) as log:
        for batch in range(batches):
            value = f"{writer}-{batch}"
            log.append(topic, [record(f"w{writer}", f"{value}-{i}") for i in range(50)])


def test_two_writers_and_a_reader_at_once(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 2})
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=_append_many, args=(log.url, topic, writer, 10)) for writer in (1, 2)
    ]
    with Follower(log, {topic: {}}) as follower:
        for writer in writers:
            writer.start()
        seen = 0
        while any(writer.is_alive() for writer in writers):
            seen, before = len(read(log, topic)), seen
            assert seen >= before
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        follower.wait_for(1000)
    rows = read(log, topic)
    assert len(rows) == len(follower.rows) == 1000
    for writer in (1, 2):
        values = [value.decode() for _, _, key, value, _ in rows if key == b"w%d" % writer]
        assert values == [f"{writer}-{b}-{i}" for b in range(10) for i in range(50)]


WRITER = """
import sys
from ray_rec.log import Record, open_log

with open_log(sys.argv[1]) as log:
    for i in range(10**9):
        log.append(sys.argv[2], [Record(b"u", b"%d-%d" % (i, j), 1) for j in range(20)])
        print(i, flush=True)
"""


def test_what_was_accepted_survives_kill_9(log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    command = [sys.executable, "-W", "ignore", "-c", WRITER, log.url, topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 20:
                break
        os.kill(writer.pid, signal.SIGKILL)
        accepted = [int(line) for line in writer.stdout]
    last = max(accepted, default=20)
    with open_log(log.url) as again:
        values = [value for *_, value, _ in read(again, topic)]
        expected = [b"%d-%d" % (i, j) for i in range(last + 1) for j in range(20)]
        assert values[: len(expected)] == expected
        if log.url.startswith("sqlite"):
            assert len(values) % 20 == 0  # an append is all or nothing
        again.append(topic, [record("u", "after")])
        assert read(again, topic)[-1][3] == b"after"


def test_standard_topics(sqlite_url: str) -> None:
    with open_log(sqlite_url) as log:
        with pytest.raises(LogUnavailable, match="load data or start a stream"):
            log.topics()
        assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
        log.create_topics({"events": 1})
        with pytest.raises(TopicMissing, match="has no topic items, exposures"):
            check_topics(log)
        create_standard_topics(log, 3)
        assert log.topics() == {t: 1 if t == "dead-letter" else 3 for t in STANDARD_TOPICS}
        log.add_partitions("events", 4)
        with pytest.raises(LogError, match="equal numbers of partitions"):
            check_topics(log)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "events.db",
        "mysql://x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "kafka://",
        "kafka://host",
        "kafka://host:port",
        "kafka://host:99999",
        "kafka://a:1,",
        "kafka://a:1/topic",
    ],
)
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///var/log\.db"):
        open_log(url)


def test_gaps_are_log_errors() -> None:
    assert issubclass(OffsetGap, LogError)
