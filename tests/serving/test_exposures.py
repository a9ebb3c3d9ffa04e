"""Answers reach the log at least once, whatever the log does."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ray_rec.errors import LogUnavailable
from ray_rec.events import EXPOSURES, ExposedItem, Exposure, Record, decode
from ray_rec.log import create_standard_topics
from ray_rec.log.sqlite import SqliteLog
from ray_rec.serving.exposures import ExposureWriter


class LogThatFails(SqliteLog):
    """Refuses to append while `broken` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.broken = threading.Event()

    def append(self, topic: str, records: Sequence[Record]) -> None:
        if self.broken.is_set():
            raise LogUnavailable("the broker is away")
        super().append(topic, records)


@pytest.fixture
def log(tmp_path: Path) -> LogThatFails:
    log = LogThatFails(f"sqlite:///{tmp_path}/log.db")
    create_standard_topics(log, 2)
    return log


def exposure(number: int) -> Exposure:
    item = ExposedItem(item_id="i1", position=1, score=0.5, propensity=0.25)
    return Exposure(
        request_id=f"r{number}",
        user_id=f"u{number % 3}",
        ts=1_000 + number,
        model_version=1,
        policy="greedy",
        items=[item],
    )


def written(log: SqliteLog) -> list[str]:
    ranges = {p: (0, end) for p, end in log.latest(EXPOSURES).items()}
    tables = [decode(EXPOSURES, raw).table for raw in log.read(EXPOSURES, ranges)]
    return sorted(str(row["request_id"]) for t in tables for row in t.to_pylist())


def test_close_writes_what_waits(log: LogThatFails) -> None:
    writer = ExposureWriter(log, capacity=100)
    assert all(writer.put(exposure(n)) for n in range(10))
    assert writer.close() == 0
    assert written(log) == [f"r{n}" for n in range(10)]
    assert (writer.num_written, writer.num_lost) == (10, 0)


def test_exposures_wait_for_a_log_that_is_away(log: LogThatFails) -> None:
    log.broken.set()
    writer = ExposureWriter(log, capacity=100, retry_s=0.01)
    for n in range(5):
        writer.put(exposure(n))
    assert writer.num_waiting == 5
    log.broken.clear()
    deadline = time.monotonic() + 10
    while writer.num_waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    assert written(log) == [f"r{n}" for n in range(5)]
    writer.close()


def test_a_full_queue_counts_and_tells_what_is_lost(
    log: LogThatFails, caplog: pytest.LogCaptureFixture
) -> None:
    log.broken.set()
    writer = ExposureWriter(log, capacity=2, full_wait_s=0.01, retry_s=0.01)
    results = [writer.put(exposure(n)) for n in range(12)]
    assert not all(results)
    assert writer.num_lost == results.count(False)
    assert "is lost" in caplog.text
    assert writer.close(timeout_s=0.05) == 12 - writer.num_lost
    assert "were not written" in caplog.text
