"""The file behind SqliteLog: its tables, how records are put in, found by time, and read.

Each record's row id is `partition row << 40 | offset`, so a range is one walk along the table.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.errors import LogUnavailable
from ray_rec.events.schema import LOG_SCHEMA, Record

SHIFT = 40
TIMES_EVERY = 1024
_FORMAT = 1
_APPLICATION = 0x72726C67  # "rrlg" tells our files from other databases
_BUSY_TIMEOUT_S = 60.0
_FETCH_RECORDS = 1024
_BATCH_BYTES = 32 << 20

_TABLES = f"""
CREATE TABLE topics (name TEXT PRIMARY KEY, compacted INTEGER NOT NULL);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL, max_ts INTEGER NOT NULL, UNIQUE (topic, partition));
CREATE TABLE records (id INTEGER PRIMARY KEY, ts INTEGER NOT NULL, key BLOB, value BLOB);
CREATE TABLE times (
    partition INTEGER NOT NULL, max_ts INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    PRIMARY KEY (partition, max_ts, "offset")) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT}
"""


def connect(path: Path, create: bool) -> sqlite3.Connection:
    """Open a log file; raise LogUnavailable for one that is missing or something else."""
    if not create and not path.exists():
        raise LogUnavailable(f"no log at sqlite:///{path}; load data or start a stream first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, _BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        if create:
            _create(db)
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA mmap_size = {1 << 40}")
        marks = _marks(db)
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"sqlite:///{path} cannot be opened: {error}") from error
    if marks != (_APPLICATION, _FORMAT):
        db.close()
        raise LogUnavailable(f"sqlite:///{path} is a database, but not a log of this version")
    return db


def _marks(db: sqlite3.Connection) -> tuple[int, int]:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return application, version


def _create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file; another process may be doing the same."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while _is_empty(db):
        try:
            # Entering WAL mode does not wait for other connections, hence the loop.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            with db:
                if _is_empty(db):
                    for statement in _TABLES.split(";"):
                        db.execute(statement)
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _is_empty(db: sqlite3.Connection) -> bool:
    return _marks(db) == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone()


def enlarge(db: sqlite3.Connection, topic: str, total: int) -> None:
    """Add partitions up to `total`; a topic never shrinks."""
    db.executemany(
        "INSERT OR IGNORE INTO partitions (topic, partition, next_offset, max_ts)"
        " VALUES (?, ?, 0, -1)",
        [(topic, partition) for partition in range(total)],
    )


def insert(db: sqlite3.Connection, row: int, records: Sequence[Record]) -> None:
    """Append records to one partition inside the caller's transaction."""
    query = "SELECT next_offset, max_ts FROM partitions WHERE id = ?"
    start, max_ts = db.execute(query, (row,)).fetchone()
    end = start + len(records)
    keys, values, times = zip(*records, strict=True)
    ids = range((row << SHIFT) + start, (row << SHIFT) + end)
    rows = zip(ids, times, keys, values, strict=True)
    db.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
    # reached[i]: the largest time before offset start + i.
    reached = np.maximum.accumulate(np.array([max_ts, *times], np.int64)).tolist()
    first = -(-max(start, 1) // TIMES_EVERY) * TIMES_EVERY
    marks = [(row, reached[o - start], o) for o in range(first, end + 1, TIMES_EVERY)]
    db.executemany("INSERT OR IGNORE INTO times VALUES (?, ?, ?)", marks)
    update = "UPDATE partitions SET next_offset = ?, max_ts = ? WHERE id = ?"
    db.execute(update, (end, reached[-1], row))


def offset_at(db: sqlite3.Connection, row: int, end: int, ts_ms: int) -> int:
    """Return the first offset before `end` with ts >= ts_ms, else `end`.

    The largest time so far never falls, so the last mark below ts_ms is where to look on.
    """
    mark = db.execute(
        'SELECT "offset" FROM times WHERE partition = ? AND max_ts < ?'
        ' ORDER BY max_ts DESC, "offset" DESC LIMIT 1',
        (row, ts_ms),
    ).fetchone()
    base = row << SHIFT
    found = db.execute(
        "SELECT id FROM records WHERE id >= ? AND id < ? AND ts >= ? ORDER BY id LIMIT 1",
        (base + (mark[0] if mark else 0), base + end, ts_ms),
    ).fetchone()
    return found[0] - base if found else end


def compact(db: sqlite3.Connection, row: int, end: int) -> int:
    """Keep only the last record of each key of a partition; return how many were removed."""
    span = (row << SHIFT, (row << SHIFT) + end)
    return db.execute(
        "DELETE FROM records WHERE id >= ? AND id < ? AND key IS NOT NULL AND id NOT IN"
        " (SELECT max(id) FROM records WHERE id >= ? AND id < ? GROUP BY key)",
        (*span, *span),
    ).rowcount


def fetch(
    db: sqlite3.Connection, place: tuple[int, int], span: tuple[int, int], num_records: int
) -> pa.Table:
    """Return the first records of a span of offsets, at most `num_records` or some 32 MB.

    `place` is (partition, its row). Small fetches, whose Arrow size is known at once, bound the
    memory that large values take.
    """
    base = place[1] << SHIFT
    cursor = db.execute(
        "SELECT id, ts, key, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (base + span[0], base + span[1], num_records),
    )
    batches: list[pa.RecordBatch] = []
    num_bytes = 0
    while num_bytes < _BATCH_BYTES and (rows := cursor.fetchmany(_FETCH_RECORDS)):
        batches.append(_to_batch(place, rows))
        num_bytes += batches[-1].nbytes
    cursor.close()
    return pa.Table.from_batches(batches, LOG_SCHEMA).combine_chunks()


def _to_batch(place: tuple[int, int], rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    ids, times, keys, values = zip(*rows, strict=True)
    columns: list[Any] = [
        pa.array(np.full(len(rows), place[0], np.int32)),
        pa.array(np.array(ids, np.int64) - (place[1] << SHIFT)),
        pa.array(times, pa.int64()),
        pa.array(keys, pa.binary()),
        pa.array(values, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LOG_SCHEMA)
