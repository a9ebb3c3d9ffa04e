"""What only Kafka does: transactions, compaction and retention by the broker, crashes, access."""

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition

from ray_rec.errors import LogError, LogUnavailable, OffsetGap
from ray_rec.log import EventLog, Record, open_log

pytestmark = pytest.mark.kafka

_names = itertools.count()


@pytest.fixture
def log(kafka_url: str) -> Iterator[EventLog]:
    with open_log(kafka_url) as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    return f"kafka-{os.getpid()}-{next(_names)}"


@pytest.fixture
def admin(kafka_broker: Any) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap)
    yield client
    client.close()


def offsets(log: EventLog, topic: str, start: int, end: int) -> list[int]:
    return [o for t in log.read(topic, {0: (start, end)}) for o in t["offset"].to_pylist()]


def wait_for_end(log: EventLog, topic: str, end: int) -> None:
    """Markers are written a moment after the client's call has returned."""
    deadline = time.monotonic() + 10
    while (latest := log.latest(topic)) != {0: end}:
        assert time.monotonic() < deadline, latest
        time.sleep(0.01)


def transaction(broker: Any, topic: str, values: int, commit: bool = True) -> None:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic}-{next(_names)}"}
    )
    producer.init_transactions()
    producer.begin_transaction()
    for i in range(values):
        producer.produce(topic, key=b"k", value=b"%d" % i, partition=0)
    if commit:
        producer.commit_transaction()
    else:
        producer.flush()
        producer.abort_transaction()


def test_ends_on_transaction_markers(kafka_broker: Any, log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    transaction(kafka_broker, topic, 3)  # offsets 0-2, marker 3
    transaction(kafka_broker, topic, 2, commit=False)  # 4-5 aborted, marker 6
    wait_for_end(log, topic, 7)
    start = time.monotonic()
    assert offsets(log, topic, 0, 7) == [0, 1, 2]
    assert offsets(log, topic, 3, 7) == []
    assert offsets(log, topic, 6, 7) == []
    assert time.monotonic() - start < 5  # ends on the end of the partition, not on a timeout
    log.append(topic, [Record(b"k", b"after", 1)])
    assert offsets(log, topic, 1, 6) == [1, 2]
    assert offsets(log, topic, 0, 8) == [0, 1, 2, 7]


def test_open_transactions_lie_behind_the_end(kafka_broker: Any, log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [Record(b"k", b"1", 1)])
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, key=b"k", value=b"open", partition=0)
    producer.flush()
    assert log.latest(topic) == {0: 1}
    assert offsets(log, topic, 0, 1) == [0]
    producer.commit_transaction()
    wait_for_end(log, topic, 3)
    assert offsets(log, topic, 0, 3) == [0, 1]


def test_ends_on_a_compacted_tail(kafka_broker: Any, admin: Any, log: EventLog, topic: str) -> None:
    quick = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "1"}
    configs = {"cleanup.policy": "compact", "delete.retention.ms": "0", **quick}
    admin.create_topics({topic: {"num_partitions": 1, "configs": configs}}, wait_for_metadata=True)
    now = int(time.time() * 1000)
    records = [Record(b"k%d" % (i % 2), b"%d" % i, now + i) for i in range(20)]
    log.append(topic, records)
    deadline = time.monotonic() + 60
    while len(offsets(log, topic, 0, 20)) == 20:
        assert time.monotonic() < deadline, "the broker never compacted"
        # A new record rolls the segment, which makes the older one cleanable.
        log.append(topic, [Record(b"roll", b"x", now + 1000)])
        time.sleep(0.3)
    assert log.latest(topic)[0] > 20
    assert log.earliest(topic) == {0: 0}
    assert offsets(log, topic, 0, 20) == [18, 19]
    assert offsets(log, topic, 0, 18) == []
    assert offsets(log, topic, 3, 19) == [18]


def test_deleted_offsets_are_an_error_that_names_them(
    admin: Any, log: EventLog, topic: str
) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [Record(b"k", b"%d" % i, i) for i in range(10)])
    admin.delete_records({TopicPartition(topic, 0): 6})
    assert log.earliest(topic) == {0: 6}
    with pytest.raises(OffsetGap, match=rf"{topic}/0: offsets \[2, 6\) were deleted"):
        offsets(log, topic, 2, 8)
    with pytest.raises(OffsetGap, match=r"\[0, 3\)"):
        offsets(log, topic, 0, 3)
    assert offsets(log, topic, 6, 10) == [6, 7, 8, 9]
    assert log.offsets_at(topic, 0) == {0: 6}


def test_a_gap_in_one_of_several_topics_is_named(admin: Any, log: EventLog, topic: str) -> None:
    other = f"{topic}-b"
    log.create_topics({topic: 1, other: 1})
    for name in (topic, other):
        log.append(name, [Record(b"k", b"%d" % i, i) for i in range(10)])
    admin.delete_records({TopicPartition(other, 0): 6})
    assert log.extent([topic, other]) == {topic: {0: (0, 10)}, other: {0: (6, 10)}}
    with pytest.raises(OffsetGap, match=rf"{other}/0: offsets \[2, 6\) were deleted"):
        list(log.read_topics({topic: {0: (0, 10)}, other: {0: (2, 10)}}))


def test_following_from_deleted_offsets_is_an_error(admin: Any, log: EventLog, topic: str) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [Record(b"k", b"%d" % i, i) for i in range(10)])
    admin.delete_records({TopicPartition(topic, 0): 6})
    with pytest.raises(OffsetGap, match=f"{topic}/0 from 2"):
        next(log.follow({topic: {0: 2}}, threading.Event()))


def test_a_killed_broker_comes_back_with_everything(
    kafka_broker: Any, log: EventLog, topic: str
) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [Record(b"k", b"%d" % i, i) for i in range(100)])
    stop, seen = threading.Event(), 0
    for _, table in log.follow({topic: {}}, stop):
        seen += table.num_rows
        if seen == 100:
            kafka_broker.kill()
            kafka_broker.restart()
            assert offsets(log, topic, 0, 100) == list(range(100))
            log.append(topic, [Record(b"k", b"after", 1)])
            assert offsets(log, topic, 99, 101) == [99, 100]
        elif seen == 101:
            stop.set()


def test_no_broker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_rec.log.kafka.log.CONNECT_TIMEOUT_MS", 500)
    with open_log("kafka://127.0.0.1:1") as log, pytest.raises(LogUnavailable) as caught:
        log.topics()
    assert "kafka://127.0.0.1:1" in str(caught.value)
    assert "make kafka" in str(caught.value)


def test_without_librdkafka_the_error_names_the_install(
    log: EventLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create_topics({topic: 1})
    log.append(topic, [Record(b"k", b"v", 1)])
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(LogError, match=r"pip install ray-rec\[kafka\]"):
        offsets(log, topic, 0, 1)
