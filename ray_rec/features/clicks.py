"""Click examples: exposures on their way into the join, and out of it as rows to learn."""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Float32,
    Int64,
    column,
    list_array,
    lists,
    starts_of,
    table_of,
)
from ray_rec.features.examples import EXAMPLES_SCHEMA, EXPOSURES_CODE
from ray_rec.features.histories import Sequences
from ray_rec.features.join import OPEN_SCHEMA
from ray_rec.features.recall import empty_lists
from ray_rec.features.records import ExposureRows


def open_exposures(
    rows: ExposureRows,
    shown: dict[str, AnyArray],
    known: dict[str, Float32],
    context: tuple[Int64, Int64],
    sequences: Sequences,
    held_out: Bool,
) -> pa.Table:
    """Return exposures as OPEN_SCHEMA, the shown items with what is `known` of each, [S, …].

    `context` is (first place, length) in the sequences.
    """
    offsets = starts_of(rows.num_items)
    columns = {
        "request": rows.key,
        "user": rows.user,
        "ts": rows.ts,
        "policy": rows.policy.astype(np.int32),
        "closes_ms": rows.closes_ms,
        "partition": rows.partition,
        "offset": rows.offset,
        "held_out": held_out,
        "erased": np.zeros(len(rows), np.bool_),
        **sequences.slices(*context),
        **{f"shown_{name}": list_array(values, offsets) for name, values in shown.items()},
        **{
            f"shown_{name}": list_array(values.ravel(), offsets * values.shape[1])
            for name, values in known.items()
        },
    }
    return table_of(columns, OPEN_SCHEMA)


def click_examples(closed: pa.Table) -> pa.Table:
    """Return closed exposures as EXAMPLES_SCHEMA: one query a row, seeing the whole context."""
    rows = closed.num_rows
    one_each = np.arange(rows + 1)
    items = lists(closed, "shown_item")[1]
    taken = ("partition", "offset", "held_out", "token_item", "token_type", "token_ts")
    shown = [name for name in EXAMPLES_SCHEMA.names if name.startswith("shown_")]
    shown.remove("shown_query")
    columns = {
        "step": pa.nulls(rows, pa.int32()),
        "topic_code": np.full(rows, EXPOSURES_CODE, np.int8),
        **{name: column(closed, name) for name in (*taken, *shown)},
        "query_context": list_array(lists(closed, "token_item")[1].astype(np.int32), one_each),
        "query_ts": list_array(column(closed, "ts").to_numpy(), one_each),
        "shown_query": list_array(np.zeros(items.sum(), np.int32), starts_of(items)),
        **empty_lists(rows, "target_"),
    }
    return table_of({name: columns[name] for name in EXAMPLES_SCHEMA.names}, EXAMPLES_SCHEMA)
