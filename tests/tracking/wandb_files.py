"""Runs that W&B kept offline, read as `wandb sync` reads them."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record, RunRecord

from tests.waiting import until

HEADER, BLOCK = 7, 32_768


def records_of(folder: Path) -> list[Record]:
    """Return what the one run under a folder kept, in order; its writer is another process."""
    (path,) = folder.rglob("run-*.wandb")

    def is_whole() -> bool:
        return any(record.HasField("exit") for record in _records(path.read_bytes()))

    until(is_whole)
    return list(_records(path.read_bytes()))


def _records(raw: bytes) -> Iterator[Record]:
    """Yield the records of a log in LevelDB's format.

    A block holds fragments of (checksum, length, kind), and a record ends with a fragment of kind 1
    (the whole) or 4 (the last).
    """
    at, record = HEADER, b""
    while at + 7 <= len(raw):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        record += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


def points(folder: Path) -> list[dict[str, Any]]:
    """Return the points of the run's history as they were told; `window` is their axis."""
    return [
        {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in record.history.item
            if not item.key.startswith("_")
        }
        for record in records_of(folder)
        if record.HasField("history")
    ]


def run_of(folder: Path) -> RunRecord:
    """Return what the run said of itself when it began."""
    return next(record.run for record in records_of(folder) if record.HasField("run"))
