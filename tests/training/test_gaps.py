"""What retention deleted: passed over and counted, or an error that says how to go on."""

import pytest

from ray_rec.errors import OffsetGap
from ray_rec.log.window import Window
from ray_rec.training.gaps import mended, num_lost, pass_over

RANGES = {"events": {0: (5, 20), 1: (0, 7), 2: (4, 4)}, "items": {0: (3, 9)}}


def test_ranges_begin_at_what_is_left() -> None:
    first = {"events": {0: 8, 1: 30, 2: 9}, "items": {0: 3}}
    kept, lost = pass_over(RANGES, first, "skip")
    assert kept == {"events": {0: (8, 20), 1: (7, 7), 2: (4, 4)}, "items": {0: (3, 9)}}
    assert lost == {"events": {0: 3, 1: 7}}


def test_nothing_deleted_is_nothing_lost() -> None:
    first = {"events": {0: 5, 1: 0, 2: 50}, "items": {0: 0}}
    assert pass_over(RANGES, first, "fail") == (RANGES, {})


def test_the_error_names_the_gap_and_how_to_go_on() -> None:
    first = {"events": {0: 8}}
    with pytest.raises(OffsetGap, match=r"events/0: offsets \[5, 8\) .* --on-gap skip"):
        pass_over(RANGES, first, "fail")


def test_a_plan_keeps_count_of_what_it_lost_before_and_since() -> None:
    window = Window(3, RANGES, lost={"events": {0: 5}, "items": {0: 1}})
    amended = mended(window, {"events": {0: 8, 1: 2}}, "skip")
    assert amended.lost == {"events": {0: 8, 1: 2}, "items": {0: 1}}
    assert amended.ends() == window.ends()
    assert (num_lost(window), num_lost(amended)) == (6, 11)
    assert mended(amended, {"events": {0: 8, 1: 2}}, "fail") == amended
