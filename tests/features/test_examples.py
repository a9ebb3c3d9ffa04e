"""Steps and batches, against rows written by hand."""

import numpy as np
import pyarrow as pa

from ray_rec.features.examples import EXAMPLES_SCHEMA, assign_steps, collate


def row(offset, held_out=False, topic_code=0, partition=0, **lists):
    names = EXAMPLES_SCHEMA.names[5:]
    base = {name: lists.get(name, []) for name in names}
    return {
        "step": None,
        "topic_code": topic_code,
        "partition": partition,
        "offset": offset,
        "held_out": held_out,
        **base,
    }


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=EXAMPLES_SCHEMA)


TWO_ROWS = table(
    row(
        7,
        token_item=[4, 5],
        token_type=[0, 1],
        token_ts=[10, 20],
        query_context=[1, 2],
        query_ts=[15, 30],
        target_query=[0, 1, 1],
        target_item=[6, 7, 8],
        target_type=[0, 1, 4],
    ),
    row(
        3,
        topic_code=1,
        query_context=[0],
        query_ts=[40],
        shown_query=[0, 0],
        shown_item=[9, 4],
        shown_position=[1, 2],
        shown_labels=[0, 0b101],
        shown_propensity=[0.5, float("nan")],
        shown_popularity=[1.0, 2.0, 3.0, 4.0],
    ),
)


def test_collate_pads_rows_and_makes_query_numbers_global():
    batch = collate(TWO_ROWS, num_outcomes=3)
    assert batch.item.tolist() == [[4, 5], [-1, -1]]
    assert batch.type.tolist() == [[0, 1], [0, 0]]
    assert batch.ts.tolist() == [[10, 20], [0, 0]]
    assert batch.length.tolist() == [2, 0]
    assert batch.query_row.tolist() == [0, 0, 1]
    assert batch.query_context.tolist() == [1, 2, 0]
    assert batch.target_query.tolist() == [0, 1, 1]
    assert batch.target_item.tolist() == [6, 7, 8]
    assert batch.shown_query.tolist() == [2, 2]  # the second row's query is the third of all
    assert batch.shown_labels.tolist() == [[0, 0, 0], [1, 0, 1]]
    assert batch.shown_propensity[0] == np.float32(0.5)
    assert np.isnan(batch.shown_propensity[1])
    assert batch.shown_popularity.tolist() == [[1, 2], [3, 4]]  # by item, then horizon
    assert batch.item.dtype == np.int64
    assert batch.shown_labels.dtype == np.float32
    assert batch.key.dtype == np.uint64


def test_a_slice_collates_like_the_rows_alone():
    whole, part = collate(TWO_ROWS, 3), collate(TWO_ROWS.slice(1), 3)
    assert part.shown_item.tolist() == [9, 4]
    assert part.shown_query.tolist() == [0, 0]
    assert part.key.tolist() == whole.key[1:].tolist()


def test_collate_of_nothing_is_empty_but_has_a_width():
    batch = collate(EXAMPLES_SCHEMA.empty_table(), 2)
    assert batch.item.shape == (0, 1)
    assert batch.shown_labels.shape == (0, 2)


def test_keys_differ_and_do_not_depend_on_the_table():
    rows = table(row(1), row(2), row(1, partition=1), row(1, topic_code=1))
    keys = collate(rows, 1).key
    assert len(set(keys.tolist())) == 4
    assert keys[0] == 14994022588980393954  # pinned: a change reshuffles all randomness


def test_steps_follow_the_log_not_the_order_of_arrival():
    rows = [row(o, held_out=o == 2) for o in (4, 2, 1, 3)] + [row(0, partition=1)]
    out = assign_steps(table(*rows), rows_per_step=2)
    assert out.column("offset").to_pylist() == [1, 2, 3, 4, 0]
    assert out.column("step").to_pylist() == [0, -1, 0, 1, 1]
    assert out.schema == EXAMPLES_SCHEMA
    assert assign_steps(table(*rows[::-1]), 2).equals(out)


def test_steps_of_an_empty_table():
    assert assign_steps(EXAMPLES_SCHEMA.empty_table(), 64).num_rows == 0
