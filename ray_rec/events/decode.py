"""Raw log records to validated Arrow columns, whole batches at a time.

The fast path parses all values of a batch as JSON lines in one call. Only a batch in which
something is wrong is parsed record by record, so that each bad record gets its own reason.
Nothing is lost: every input row is in `table` or in `dead`.
"""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.errors import InvalidRecord
from ray_rec.events.columns import BUILDERS, removed_columns
from ray_rec.events.parse import decode_one, decoder, encode, key_of
from ray_rec.events.schema import (
    DEAD_LETTER,
    DEAD_SCHEMA,
    ITEMS,
    KEY_FIELD,
    MAX_AHEAD_MS,
    MAX_ID_CHARS,
    MAX_RECORD_BYTES,
    SCHEMAS,
    DeadLetter,
    Reason,
    Record,
)

BATCH_RECORDS = 16_384

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


class Decoded(NamedTuple):
    """Usable records in the columns of their topic, and the unusable ones as they came."""

    table: pa.Table
    dead: pa.Table


class _Bad(NamedTuple):
    row: int
    reason: str
    field: str


def decode(topic: str, raw: pa.Table) -> Decoded:
    """Decode records of LOG_SCHEMA into SCHEMAS[topic] and DEAD_SCHEMA, each in input order."""
    decoder(topic)
    tables, dead = [], []
    for batch in raw.to_batches(max_chunksize=BATCH_RECORDS):
        good, bad = _decode_batch(topic, batch)
        tables.append(good)
        if bad:
            dead.append(_dead_batch(topic, batch, bad))
    return Decoded(
        pa.Table.from_batches(tables, SCHEMAS[topic]), pa.Table.from_batches(dead, DEAD_SCHEMA)
    )


def dead_letters(dead: pa.Table) -> list[Record]:
    """Encode unusable records for the topic `dead-letter`."""
    records = []
    for row in dead.to_pylist():
        letter = DeadLetter(**row)
        if letter.reason == Reason.TOO_LARGE:
            letter = msgspec.structs.replace(letter, value=None)
        records.append(Record(key_of(DEAD_LETTER, letter), encode(letter), letter.ts))
    return records


def _decode_batch(topic: str, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[_Bad]]:
    """Decode one batch; rows without a value are set aside first, for they break JSON lines."""
    lengths: Any = batch["value"]
    empty = pc.fill_null(pc.binary_length(lengths), 0).to_numpy() == 0
    if not empty.any():
        good, _, bad = _decode_filled(topic, batch)
        return good, bad
    empty_rows, filled_rows = np.flatnonzero(empty), np.flatnonzero(~empty)
    good, kept, bad = _decode_filled(topic, batch.take(filled_rows))
    bad = [b._replace(row=int(filled_rows[b.row])) for b in bad]
    if topic != ITEMS:
        return good, bad + [_Bad(int(row), Reason.EMPTY_RECORD, "") for row in empty_rows]
    removed, removed_rows, bad_keys = _removed(batch, empty_rows.tolist())
    order = np.argsort(np.concatenate([filled_rows[kept], removed_rows]))
    both = pa.Table.from_batches([good, removed]).take(order)
    merged = both.combine_chunks().to_batches()
    return (merged[0] if merged else good), bad + bad_keys


def _decode_filled(topic: str, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Rows, list[_Bad]]:
    """Decode rows that have a value: the usable ones, their rows in `batch`, the others."""
    bad: list[_Bad] = []
    kept: Rows = np.arange(batch.num_rows)
    structs = _parse_lines(topic, batch["value"])
    if structs is None:
        structs, kept, bad = _parse_each(topic, batch["value"])
        batch = batch.take(kept)
    columns = [batch["partition"], batch["offset"], *BUILDERS[topic](structs)]
    good = pa.RecordBatch.from_arrays(columns, schema=SCHEMAS[topic])
    keys: Any = good[KEY_FIELD[topic]].cast(pa.binary())
    equal: Any = pc.equal(keys, batch["key"])
    matches = pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
    ahead = matches & _is_ahead(topic, good, batch)
    usable = matches & ~ahead
    if not usable.all():
        bad += [_Bad(int(row), Reason.KEY_MISMATCH, KEY_FIELD[topic]) for row in kept[~matches]]
        bad += [_Bad(int(row), Reason.AHEAD_OF_LOG, "ts") for row in kept[ahead]]
        kept, good = kept[usable], good.filter(pa.array(usable))
    return good, kept, bad


def _is_ahead(topic: str, good: pa.RecordBatch, batch: pa.RecordBatch) -> Any:
    """Mark behaviour too far ahead of its record; a record without a time (0, -1) tells nothing."""
    claimed, log_ms = good["ts"].to_numpy(), batch["ts"].to_numpy()
    return (topic != ITEMS) & (log_ms > 0) & (claimed > log_ms + MAX_AHEAD_MS)


def _parse_lines(topic: str, values: Any) -> list[Any] | None:
    """Parse all values as JSON lines; None when that would not say the same as one by one."""
    num_values = len(values)
    if not num_values:
        return []
    if pc.max(pc.binary_length(values)).as_py() > MAX_RECORD_BYTES:
        return None
    whole: Any = pa.ListArray.from_arrays(pa.array([0, num_values], pa.int32()), values)
    joined: Any = pc.binary_join(whole, b"\n")
    lines: bytes = joined[0].as_py()
    if lines.count(b"\n") != num_values - 1:
        return None
    try:
        if not lines.isascii():
            lines.decode()
        structs: list[Any] = decoder(topic).decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # A value may be half an object and the next its other half: then there are fewer objects.
    return structs if len(structs) == num_values else None


def _parse_each(topic: str, values: Any) -> tuple[list[Any], Rows, list[_Bad]]:
    structs, kept, bad = [], [], []
    for row, value in enumerate(values.to_pylist()):
        try:
            structs.append(decode_one(topic, value))
            kept.append(row)
        except InvalidRecord as error:
            bad.append(_Bad(row, error.reason, error.field))
    return structs, np.array(kept, np.int64), bad


def _removed(
    batch: pa.RecordBatch, rows: list[int]
) -> tuple[pa.RecordBatch, list[int], list[_Bad]]:
    """Read empty values of `items`: each removes the item that its key names."""
    ids, kept, bad = [], [], []
    for row in rows:
        reason, item_id = _key_text(batch["key"][row].as_py())
        if reason:
            bad.append(_Bad(row, reason, KEY_FIELD[ITEMS]))
        else:
            ids.append(item_id)
            kept.append(row)
    taken = batch.take(pa.array(kept, pa.int64()))
    times: Any = taken["ts"].to_pylist()
    columns = [taken["partition"], taken["offset"], *removed_columns(ids, times)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMAS[ITEMS]), kept, bad


def _key_text(key: bytes | None) -> tuple[Reason | None, str]:
    if key is None:
        return Reason.MISSING_FIELD, ""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return Reason.NOT_UTF8, ""
    return (None, text) if 1 <= len(text) <= MAX_ID_CHARS else (Reason.WRONG_LENGTH, "")


def _dead_batch(topic: str, batch: pa.RecordBatch, bad: list[_Bad]) -> pa.RecordBatch:
    rows = sorted(bad)
    taken = batch.take(pa.array([b.row for b in rows], pa.int64()))
    columns = [
        pa.array([topic] * len(rows), pa.string()),
        taken["partition"],
        taken["offset"],
        pa.array([b.reason for b in rows], pa.string()),
        pa.array([b.field for b in rows], pa.string()),
        taken["value"],
        taken["key"],
        taken["ts"],
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DEAD_SCHEMA)
