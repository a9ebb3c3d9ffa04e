"""What the model learns from: token sequences with queries, recall targets and shown items.

One Arrow row is one sequence of one user. A query sees the first `context` tokens of its row, all
of them strictly older than the query; the row's first record seeds all randomness about it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Float32,
    Int64,
    UInt64,
    arrow,
    lists,
    mix,
    numbers,
    ragged_ranges,
    starts_of,
)

EVENTS_CODE, EXPOSURES_CODE = 0, 1
HELD_OUT_STEP = -1

_EXAMPLES: list[tuple[str, Any]] = [
    ("step", pa.int32()),
    ("topic_code", pa.int8()),  # 0 events, 1 exposures
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("held_out", pa.bool_()),
    ("token_item", pa.list_(pa.int32())),
    ("token_type", pa.list_(pa.int8())),
    ("token_ts", pa.list_(pa.int64())),
    ("query_context", pa.list_(pa.int32())),
    ("query_ts", pa.list_(pa.int64())),
    ("target_query", pa.list_(pa.int32())),
    ("target_item", pa.list_(pa.int32())),
    ("target_type", pa.list_(pa.int8())),
    ("shown_query", pa.list_(pa.int32())),
    ("shown_item", pa.list_(pa.int32())),
    ("shown_position", pa.list_(pa.int32())),
    ("shown_labels", pa.list_(pa.int32())),  # bit o: outcome_types[o] happened
    ("shown_propensity", pa.list_(pa.float32())),  # NaN: not logged
    ("shown_placement", pa.list_(pa.int16())),  # code, 0: not told
    ("shown_popularity", pa.list_(pa.float32())),  # S · P, when it was shown
    ("shown_rates", pa.list_(pa.float32())),  # S · F, when it was shown
]

EXAMPLES_SCHEMA = pa.schema(_EXAMPLES)

_WINDOW_ITEMS: list[tuple[str, Any]] = [
    ("row", pa.int32()),
    ("item_id", pa.string()),
    ("text", pa.string()),
    ("price", pa.float32()),  # NaN: unknown
    ("category", pa.string()),
    ("brand", pa.string()),
    ("available", pa.bool_()),
]

WINDOW_ITEMS_SCHEMA = pa.schema(_WINDOW_ITEMS)

_TAKEN: list[tuple[str, Any]] = [("item", pa.int32()), ("ts", pa.int64())]

TAKEN_SCHEMA = pa.schema(_TAKEN)

_PROMOTED: list[tuple[str, Any]] = [
    ("item", pa.int32()),
    ("ts", pa.int64()),
    ("shares", pa.list_(pa.float32())),  # C, by channel
]

PROMOTED_SCHEMA = pa.schema(_PROMOTED)


@dataclass(frozen=True)
class Batch:
    """Rows as dense arrays: B rows, L tokens at most, Q queries, T targets, S shown items.

    P are the numbers of popularity, O the outcome types, F those of `responses.rates`.
    """

    item: Int64  # [B, L] catalogue row, -1 where padded
    type: Int64  # [B, L] event type code, 0 where padded
    ts: Int64  # [B, L] ms, 0 where padded
    length: Int64  # [B]
    query_row: Int64  # [Q] -> B
    query_context: Int64  # [Q] tokens that the query sees
    query_ts: Int64  # [Q] ms
    target_query: Int64  # [T] -> Q
    target_item: Int64  # [T]
    target_type: Int64  # [T]
    shown_query: Int64  # [S] -> Q
    shown_item: Int64  # [S]
    shown_position: Int64  # [S] from 1
    shown_labels: Float32  # [S, O] 0 or 1
    shown_propensity: Float32  # [S], NaN where not logged
    shown_placement: Int64  # [S] code, 0 where not told
    shown_popularity: Float32  # [S, P] as it was when the exposure arrived
    shown_rates: Float32  # [S, F] likewise
    key: UInt64  # [B] seed of everything random about the row


@dataclass(frozen=True)
class WindowExamples:
    """What one window gives to learning.

    `items` (WINDOW_ITEMS_SCHEMA) lists rows that are new or changed. `popularity` [N, P] is as it
    was at the window's start, at `at_ms` (the latest event time then; 0 before any), N counting
    the window's new items; `responses` [N, 1+O] is how often each was shown, and taken by outcome,
    by its end. `counts` says what became of the records. `taken` (TAKEN_SCHEMA) lists the events
    that popularity counts from then on, and `promoted` (PROMOTED_SCHEMA) how far items are promoted
    then, in the order of the log.
    """

    number: int
    examples: pa.Table
    items: pa.Table
    popularity: Float32
    at_ms: int
    responses: Int64
    counts: dict[str, int]
    taken: pa.Table = field(default_factory=TAKEN_SCHEMA.empty_table)
    promoted: pa.Table = field(default_factory=PROMOTED_SCHEMA.empty_table)


def assign_steps(table: pa.Table, rows_per_step: int) -> pa.Table:
    """Return the rows in canonical order with their step: the n-th learned row falls in n // rows.

    Canonical is by (topic_code, partition, offset), so neither the order of arrival nor the number
    of workers matters. Held-out rows get step -1 and do not count.
    """
    keys = [numbers(table, name) for name in ("offset", "partition", "topic_code")]
    table = table.take(np.lexsort(keys))
    learned = ~numbers(table, "held_out").astype(bool)
    steps = np.where(learned, (np.cumsum(learned) - 1) // rows_per_step, HELD_OUT_STEP)
    index = table.schema.get_field_index("step")
    return table.set_column(index, EXAMPLES_SCHEMA.field("step"), arrow(steps, pa.int32()))


def collate(table: pa.Table, num_outcomes: int) -> Batch:
    """Return the rows of an EXAMPLES_SCHEMA table as one `Batch`; O = `num_outcomes`."""
    query_context, queries = lists(table, "query_context")
    first_query = starts_of(queries)[:-1]
    item, length = lists(table, "token_item")
    bits = lists(table, "shown_labels")[0]
    labels = (bits[:, None] >> np.arange(num_outcomes)) & 1
    return Batch(
        item=_padded(item, length, -1),
        type=_padded(lists(table, "token_type")[0], length, 0),
        ts=_padded(lists(table, "token_ts")[0], length, 0),
        length=length,
        query_row=np.repeat(np.arange(table.num_rows), queries),
        query_context=query_context.astype(np.int64),
        query_ts=_flat(table, "query_ts"),
        target_query=_global(table, "target_query", first_query),
        target_item=_flat(table, "target_item"),
        target_type=_flat(table, "target_type"),
        shown_query=_global(table, "shown_query", first_query),
        shown_item=_flat(table, "shown_item"),
        shown_position=_flat(table, "shown_position"),
        shown_labels=labels.astype(np.float32),
        shown_propensity=lists(table, "shown_propensity")[0].astype(np.float32),
        shown_placement=_flat(table, "shown_placement"),
        shown_popularity=_several(table, "shown_popularity", len(bits)),
        shown_rates=_several(table, "shown_rates", len(bits)),
        key=row_keys(table),
    )


def row_keys(table: pa.Table) -> UInt64:
    """Return the seed of each row, uint64 [B]: a hash of (topic_code, partition, offset)."""
    return mix(*(numbers(table, name) for name in ("topic_code", "partition", "offset")))


def _flat(table: pa.Table, name: str) -> Int64:
    return lists(table, name)[0].astype(np.int64)


def _several(table: pa.Table, name: str, rows: int) -> Float32:
    """Return the numbers of each shown item, as many of each, [rows, …]."""
    flat = lists(table, name)[0].astype(np.float32)
    return flat.reshape(rows, len(flat) // max(1, rows))


def _global(table: pa.Table, name: str, first_query: Int64) -> Int64:
    local, lengths = lists(table, name)
    return local.astype(np.int64) + np.repeat(first_query, lengths)


def _padded(flat: AnyArray, length: Int64, pad: int) -> Int64:
    width = max(1, int(length.max(initial=0)))  # never zero wide: networks dislike it
    out = np.full(len(length) * width, pad, np.int64)
    out[ragged_ranges(np.arange(len(length)) * width, length)] = flat
    return out.reshape(len(length), width)
