"""Ragged rows in an arena, against lists of lists; marks, against sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.features.blocks import Blocks
from ray_rec.features.part import Marks

LONGEST = 5


def filled(rows: dict[int, list[int]], blocks: Blocks) -> None:
    values = np.array([v for row in rows.values() for v in row], np.int32)
    count = np.array([len(row) for row in rows.values()], np.int64)
    blocks.write(np.array(list(rows), np.int64), count, {"a": values, "b": values * 2})


def held(blocks: Blocks, num_rows: int) -> list[list[int]]:
    out = []
    for row in range(num_rows):
        places = blocks.places(np.array([row]))
        out.append(blocks.values["a"][places].tolist())
        assert (blocks.values["b"][places] == 2 * blocks.values["a"][places]).all()
    return out


_ROW = st.lists(st.integers(0, 99), max_size=LONGEST)
_WRITES = st.dictionaries(st.integers(0, 9), _ROW, max_size=6)


@given(st.lists(st.tuples(_WRITES, st.sets(st.integers(0, 9), max_size=3)), max_size=12))
def test_rows_hold_what_was_written_last(steps):
    blocks, expected = Blocks({"a": np.int32, "b": np.int64}, LONGEST), [[] for _ in range(10)]
    blocks.grow(10)
    for writes, cleared in steps:
        filled(writes, blocks)
        blocks.clear(np.array(sorted(cleared), np.int64))
        for row, values in [*writes.items(), *((row, []) for row in cleared)]:
            expected[row] = values
        assert held(blocks, 10) == expected
        assert blocks.total == sum(map(len, expected))


def test_kept_rows_are_numbered_anew():
    blocks = Blocks({"a": np.int32, "b": np.int64}, LONGEST)
    blocks.grow(3)
    filled({0: [1], 1: [2, 3], 2: [4, 5, 6]}, blocks)
    blocks.clear(np.array([1]))
    blocks.keep(np.array([0, 2]))
    assert held(blocks, 2) == [[1], [4, 5, 6]]


def test_the_arena_is_packed_when_most_of_it_is_left_behind():
    rows = 4_000
    blocks = Blocks({"a": np.int32, "b": np.int64}, 50)
    blocks.grow(rows)
    for length in (1, 2, 4, 8, 16, 32, 50):  # all move on together: nobody takes what they leave
        filled({row: [row] * length for row in range(rows)}, blocks)
        assert len(blocks.values["a"]) < 4.1 * rows * max(length, 2)
    blocks.clear(np.arange(100, rows))
    filled({0: [7] * 50, 1: [8]}, blocks)
    assert len(blocks.values["a"]) <= 100 * 50
    assert held(blocks, 3) == [[7] * 50, [8], [2] * 50]


@given(st.lists(st.lists(st.integers(0, 50))))
def test_marks_are_a_set(batches):
    marks = Marks()
    for batch in batches:
        marks.add(np.array(batch, np.int64))
    assert marks.take().tolist() == sorted(set().union(*batches))
    assert len(marks) == 0
    assert marks.take().tolist() == []


def test_marks_never_asked_for_take_no_more_than_what_they_mark():
    marks = Marks()
    for _ in range(1_000):
        marks.add(np.arange(100))
    assert len(marks) < 20_000
