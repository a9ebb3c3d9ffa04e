"""Replayed rows: those that the hash draws, spread over the window's own steps, the same again."""

from pathlib import Path

import numpy as np
import pytest

from ray_rec.errors import StateError
from ray_rec.log.window import Window
from ray_rec.training.rehearsal import Rehearsal
from tests.model import toy


@pytest.fixture
def rehearsal(tmp_path: Path) -> Rehearsal:
    rehearsal = Rehearsal(f"{tmp_path}/examples", ratio=0.5)
    for number in range(3):
        rows = [dict(row, offset=100 * number + at) for at, row in enumerate(toy.ring_rows(40, 0))]
        rehearsal.put(number, toy.table(rows))
    return rehearsal


def test_half_as_many_rows_as_new_ones_from_the_windows_of_the_plan(rehearsal: Rehearsal) -> None:
    drawn = rehearsal.draw(Window(3, {}, replay=(0, 2)), num_new=60, num_steps=4)
    offsets = drawn["offset"].to_numpy()
    assert drawn.num_rows == 30
    assert len(np.unique(offsets)) == 30
    assert set(offsets // 100) == {0, 2}
    assert set(drawn["step"].to_pylist()) == {0, 1, 2, 3}


def test_a_repetition_draws_alike_and_another_window_otherwise(rehearsal: Rehearsal) -> None:
    window = Window(3, {}, replay=(0, 1))
    assert rehearsal.draw(window, 20, 4) == rehearsal.draw(window, 20, 4)
    other = rehearsal.draw(Window(4, {}, replay=(0, 1)), 20, 4)
    assert other["offset"] != rehearsal.draw(window, 20, 4)["offset"]


def test_fewer_are_drawn_where_there_are_no_more(rehearsal: Rehearsal) -> None:
    assert rehearsal.draw(Window(3, {}, replay=(1,)), 1_000, 4).num_rows == 40


def test_without_new_steps_or_named_windows_nothing_is_replayed(rehearsal: Rehearsal) -> None:
    assert rehearsal.draw(Window(3, {}), 20, 4).num_rows == 0
    assert rehearsal.draw(Window(3, {}, replay=(0,)), 0, 0).num_rows == 0


def test_what_is_forgotten_cannot_be_replayed(rehearsal: Rehearsal) -> None:
    rehearsal.forget(before=2)
    assert rehearsal.draw(Window(3, {}, replay=(2,)), 10, 1).num_rows == 5
    with pytest.raises(StateError, match="window 1 is to be replayed"):
        rehearsal.draw(Window(3, {}, replay=(1,)), 10, 1)
