"""What only the SQLite log does: its file, compaction on demand, one host."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_rec.errors import LogUnavailable
from ray_rec.log import Record, open_log
from ray_rec.log.sqlite import SqliteLog


def records(*keys: str) -> list[Record]:
    return [Record(key.encode(), b"%d" % i, i) for i, key in enumerate(keys)]


def test_compaction_leaves_the_last_record_of_each_key(sqlite_url: str) -> None:
    with SqliteLog(sqlite_url) as log:
        log.create_topics({"items": 1})
        log.append("items", [*records("a", "b", "a", "c", "b", "a"), Record(b"c", None, 6)])
        log.append("items", [Record(None, b"keyless", 7)])
        assert log.compact("items") == 4
        assert log.compact("items") == 0
        spans = {(0, 8): [4, 5, 6, 7], (0, 4): [], (3, 5): [4], (5, 6): [5], (6, 6): []}
        for (start, end), expected in spans.items():
            tables = list(log.read("items", {0: (start, end)}, batch_records=2))
            assert [o for t in tables for o in t["offset"].to_pylist()] == expected
        assert log.latest("items") == {0: 8}
        assert log.offsets_at("items", 1) == {0: 4}
        log.append("items", records("d"))
        assert log.latest("items") == {0: 9}


def test_compaction_down_to_nothing_before_the_end(sqlite_url: str) -> None:
    with SqliteLog(sqlite_url) as log:
        log.create_topics({"items": 2})
        log.append("items", records(*"ab" * 3000))
        assert log.compact("items") == 5998
        latest = log.latest("items")
        ranges = {p: (0, end) for p, end in latest.items()}
        assert sum(t.num_rows for t in log.read("items", ranges)) == 2
        stop, seen = threading.Event(), 0
        for _, table in log.follow({"items": {}}, stop):
            seen += table.num_rows
            if seen == 2:
                stop.set()


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    with open_log(f"sqlite:///{other}") as log:
        with pytest.raises(LogUnavailable, match="not a log"):
            log.topics()
        with pytest.raises(LogUnavailable, match="not a log"):
            log.create_topics({"events": 1})
    text = tmp_path / "text.db"
    text.write_text("no database at all, and longer than a header of SQLite would be " * 9)
    with open_log(f"sqlite:///{text}") as log, pytest.raises(LogUnavailable, match="cannot be"):
        log.create_topics({"events": 1})


def test_relative_and_absolute_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_log("sqlite:///var/log.db").url == f"sqlite:///{tmp_path}/var/log.db"
    assert open_log("sqlite:////abs/log.db").url == "sqlite:////abs/log.db"
    with open_log("sqlite:///new/folders/log.db") as log:
        log.create_topics({"events": 1})
    assert (tmp_path / "new/folders/log.db").is_file()


def test_many_threads_create_and_write_at_once(sqlite_url: str) -> None:
    def work(number: int) -> None:
        with open_log(sqlite_url) as log:
            log.create_topics({"events": 2})
            for _ in range(10):
                log.append("events", records(f"u{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    with open_log(sqlite_url) as log:
        assert sum(log.latest("events").values()) == 80


def test_closed_logs_open_again(sqlite_url: str) -> None:
    log = open_log(sqlite_url)
    log.create_topics({"events": 1})
    log.close()
    log.append("events", records("a"))
    assert log.latest("events") == {0: 1}
    log.close()
    log.close()
