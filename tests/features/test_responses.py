"""What became of what was shown: counts of closed exposures, and the rates that come of them."""

import math

import numpy as np
import pytest

from ray_rec.features.catalogue import Catalogue, group_keys
from ray_rec.features.responses import Responses, num_rates, rate_codes, rates

OVERALL = (4 + 1) / (20 + 2)
COUNTS = np.array([[10, 2], [8, 1], [0, 0], [2, 1]])
GROUPS = rate_codes(np.array([[7, 5], [7, 6], [8, 6], [0, 0]]))


def _above(rate: float) -> float:
    """How far log odds are above those of all."""
    return math.log(rate / (1 - rate)) - math.log(OVERALL / (1 - OVERALL))


def test_a_rate_is_drawn_to_that_of_its_likes() -> None:
    """Item 0: its category has 10 shown and 2 taken, its text 18 and 3, itself 10 and 2."""
    category = (2 + 10 * OVERALL) / (10 + 10)
    text = (3 + 10 * category) / (18 + 10)
    own = (2 + 10 * text) / (10 + 10)
    found = rates(COUNTS, GROUPS, np.array([0]))[0]
    told = [10 / 20, 18 / 28, 10 / 20]
    expected = [_above(category), told[0], _above(text), told[1], _above(own), told[2]]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found.shape == (num_rates(1),)


def test_an_item_never_shown_has_the_rate_of_its_category() -> None:
    found = rates(COUNTS, GROUPS, np.array([2]))[0]
    category = (1 + 10 * OVERALL) / (8 + 10)  # of item 1; no other has the text of item 2
    assert found == pytest.approx(
        [_above(category), 8 / 18, _above(category), 0, _above(category), 0], rel=1e-6
    )


def test_what_says_nothing_is_in_no_group() -> None:
    found = rates(COUNTS, GROUPS, np.array([3]))[0]
    own = (1 + 10 * OVERALL) / (2 + 10)
    assert found == pytest.approx([0, 0, 0, 0, _above(own), 2 / 12], rel=1e-6, abs=1e-7)


def test_before_anything_was_shown_all_rates_are_alike() -> None:
    nothing = rates(np.zeros((3, 3)), np.zeros((3, 2), np.int64), slice(None))
    assert nothing.tolist() == [[0.0] * num_rates(2)] * 3


def test_items_are_counted_as_often_as_they_are_shown() -> None:
    responses = Responses(2)
    responses.grow(3)
    responses.add(np.array([1, 1, 2]), np.array([0b01, 0b11, 0b00]))
    assert responses.counts.tolist() == [[0, 0, 0], [2, 2, 1], [1, 0, 0]]


def test_a_state_goes_on_from_its_snapshot_and_changes() -> None:
    one = Responses(1)
    one.grow(3)
    one.add(np.array([2]), np.array([1]))
    segments = [one.snapshot()]
    one.add(np.array([0, 2]), np.array([0, 1]))
    segments.append(one.changes())
    other = Responses(1)
    other.restore(segments)
    assert other.counts.tolist() == [[1, 0], [0, 0], [2, 2]]
    assert segments[1].num_rows == 2
    assert one.changes().num_rows == 0


def test_keys_tell_texts_categories_and_brands_apart_and_know_what_is_not_said() -> None:
    text = np.array(["milk", "bread", "", "milk"], object)
    category = np.array(["dairy", None, " ", "dairy"], object)
    keys = group_keys(text, category, np.array(["farm", "farm", "", "farm"], object))
    assert (keys[0] == keys[3]).all()
    assert keys[2].tolist() == [0, 0, 0]
    assert keys[1, 1] == 0
    assert keys[0, 2] == keys[1, 2] > 0
    assert len(set(keys[:2].ravel().tolist())) == 5
    assert (keys >= 0).all()
    assert Catalogue().groups.shape == (0, 3)
