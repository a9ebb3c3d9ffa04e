"""Recall examples: the new tokens of a window as queries over what their user did before.

Tokens of one user at one time are one query with several targets (a basket is a set). A user's
queries share a row as far as it reaches; a long run is cut into overlapping rows, so that each
query still sees at least half of `history_length` tokens where they exist.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int64,
    first_of_groups,
    list_array,
    starts_of,
    table_of,
)
from ray_rec.features.examples import EVENTS_CODE, EXAMPLES_SCHEMA
from ray_rec.features.histories import Sequences


@dataclass(frozen=True)
class NewTokens:
    """The window's new tokens, sorted by (owner, ts, arrival); n each."""

    owner: Int64  # place of the user in Sequences.users
    item: AnyArray
    type: AnyArray
    ts: Int64
    partition: AnyArray
    offset: Int64
    floor: Int64  # tokens older than this are erased for the query (its user's last wish)


def recall_examples(
    sequences: Sequences, new: NewTokens, held_out: Bool, history_length: int
) -> pa.Table:
    """Return the EXAMPLES_SCHEMA rows that learn `new`; `held_out` [K] is by owner."""
    query = first_of_groups(new.owner, new.ts)  # [Q] first target of each query
    owner, query_ts = new.owner[query], new.ts[query]
    low = sequences.place(owner, new.floor[query])
    # Absolute: the query sees places from `low` up to here; an erasure of its own time leaves none.
    context = np.maximum(sequences.place(owner, query_ts), low)
    first_query = _rows(owner, low, context, history_length)  # [B]
    end = context[np.append(first_query[1:], len(query)) - 1] if len(query) else context
    begin = np.maximum(low[first_query], end - history_length)
    queries = np.diff(np.append(first_query, len(query)))
    row_of_query = np.repeat(np.arange(len(first_query)), queries)
    targets = np.diff(np.append(query, len(new.ts)))  # [Q]
    query_of_target = np.repeat(np.arange(len(query)), targets)
    per_row = starts_of(targets)[np.append(first_query, len(query))]  # [B+1] targets up to a row
    local_query = query_of_target - first_query[row_of_query[query_of_target]]
    partition, offset = _first_record(new, per_row[:-1], row_of_query[query_of_target])
    columns = {
        **_constant(len(first_query)),
        "partition": partition.astype(np.int32),
        "offset": offset,
        "held_out": held_out[owner[first_query]],
        **sequences.slices(begin, end - begin),
        "query_context": _lists(context - begin[row_of_query], queries, np.int32),
        "query_ts": _lists(query_ts, queries, np.int64),
        "target_query": list_array(local_query.astype(np.int32), per_row),
        "target_item": list_array(new.item.astype(np.int32), per_row),
        "target_type": list_array(new.type.astype(np.int8), per_row),
        **empty_lists(len(first_query), "shown_"),
    }
    return table_of({name: columns[name] for name in EXAMPLES_SCHEMA.names}, EXAMPLES_SCHEMA)


def empty_lists(rows: int, prefix: str) -> dict[str, Any]:
    """Return the list columns of EXAMPLES_SCHEMA that begin with `prefix`, all lists empty."""
    names = [name for name in EXAMPLES_SCHEMA.names if name.startswith(prefix)]
    return {name: pa.array([[]] * rows, EXAMPLES_SCHEMA.field(name).type) for name in names}


def _rows(owner: Int64, low: Int64, context: Int64, history_length: int) -> Int64:
    """Return the first query of each row.

    Rows are laid from a user's last query backwards, half a history apart; those that one row from
    the lowest place on can hold are one.
    """
    group = first_of_groups(owner, low)
    sizes = np.diff(np.append(group, len(owner)))
    last = np.repeat(context[group + sizes - 1], sizes)
    half = history_length // 2
    back = (last - context) // half
    most = np.maximum(0, -((low + history_length - last) // half))
    return first_of_groups(owner, low, np.minimum(back, most))


def _first_record(new: NewTokens, first_target: Int64, row: Int64) -> tuple[AnyArray, Int64]:
    """Return (partition, offset) of the first record of each row: its identity."""
    order = np.lexsort((new.offset, new.partition, row))
    first = order[first_target]
    return new.partition[first], new.offset[first]


def _constant(rows: int) -> dict[str, Any]:
    return {
        "step": pa.nulls(rows, pa.int32()),
        "topic_code": np.full(rows, EVENTS_CODE, np.int8),
    }


def _lists(values: AnyArray, lengths: AnyArray, kind: Any) -> Any:
    return list_array(values.astype(kind), starts_of(lengths))
