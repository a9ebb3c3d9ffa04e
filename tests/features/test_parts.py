"""Popularity, keys seen before, wishes and histories, each against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.features.arrays import hash_strings, segment_search
from ray_rec.features.controls import ALWAYS, NEVER, Controls
from ray_rec.features.popularity import Popularity
from ray_rec.features.records import is_held_out
from ray_rec.features.seen import Seen

from .builders import DAY, T0

OUT, IN, FORGET = 1, 0, 2


def test_counts_halve_with_each_half_life_whatever_the_order():
    popularity = Popularity([1.0, 2.0])
    popularity.grow(2)
    popularity.add(np.array([0, 0]), np.array([T0, T0 + 2 * DAY]))
    popularity.add(np.array([1, 0]), np.array([T0 + DAY, T0 + 2 * DAY]))
    # item 0: 2 fresh, one two days old; item 1: one a day old
    expected = np.log1p([[2 + 1 / 4, 2 + 1 / 2], [1 / 2, 2**-0.5]])
    np.testing.assert_allclose(popularity.features(), expected, rtol=1e-6)
    later = np.log1p([[(2 + 1 / 4) / 2, (2 + 1 / 2) * 2**-0.5], [1 / 4, 1 / 2]])
    np.testing.assert_allclose(popularity.features(T0 + 3 * DAY), later, rtol=1e-6)
    assert popularity.features().dtype == np.float32


def test_asking_again_recomputes_only_what_changed_and_leaves_old_answers_alone():
    popularity = Popularity([7.0])
    popularity.grow(2)
    popularity.add(np.array([0]), np.array([T0]))
    first = popularity.features(T0)
    assert popularity.features(T0) is first
    popularity.add(np.array([1]), np.array([T0]))
    popularity.grow(3)
    np.testing.assert_allclose(popularity.features(T0), np.log1p([[1], [1], [0]]), rtol=1e-6)
    np.testing.assert_allclose(first, np.log1p([[1], [0]]), rtol=1e-6)


def test_years_later_the_counts_are_still_finite():
    popularity = Popularity([0.5])
    popularity.grow(1)
    for year in range(5):
        popularity.add(np.array([0]), np.array([T0 + year * 365 * DAY]))
    np.testing.assert_allclose(popularity.features(), np.log1p([[1]]), rtol=1e-6)
    again = Popularity([0.5])
    again.restore([popularity.snapshot()])
    assert again.features().tolist() == popularity.features().tolist()


def keys(*values):
    return np.array(values, np.uint64)


def test_a_key_counts_once_within_the_horizon():
    seen = Seen(within_ms=100)
    assert seen.is_new(keys(1, 2, 1), np.array([10, 10, 20]), 0).tolist() == [True, True, False]
    assert seen.is_new(keys(2, 3), np.array([110, 110]), 0).tolist() == [False, True]
    assert seen.is_new(keys(1), np.array([111]), 0).tolist() == [True]  # more than 100 ms later


def test_keys_behind_the_watermark_are_let_go():
    seen = Seen(within_ms=100)
    for start in range(0, 64_000, 64):
        batch = np.arange(start, start + 64)
        assert seen.is_new(batch.astype(np.uint64), batch, start).all()
    assert len(seen) < 1_000
    assert not seen.is_new(keys(63_999), np.array([63_999]), 64_000).any()


def test_a_key_on_the_horizon_still_counts_and_an_older_one_does_not():
    for seen_at, new in ((8, False), (7, True)):  # the horizon is 168 - 160
        seen = Seen(within_ms=160)
        seen.is_new(keys(1), np.array([seen_at]), 0)
        assert seen.is_new(keys(1), np.array([seen_at + 160]), 168).tolist() == [new]


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300)), max_size=8)))
def test_restoring_in_between_changes_nothing(batches):
    one, other = Seen(100), Seen(100)
    for batch in batches:
        key = np.array([k for k, _ in batch], np.uint64)
        ts = np.array([t for _, t in batch], np.int64)
        segments = [other.snapshot()]
        other = Seen(100)
        other.restore(segments)
        assert one.is_new(key, ts, 50).tolist() == other.is_new(key, ts, 50).tolist()


def controls(*wishes):
    out = Controls()
    for user, ts, action in wishes:
        out.add(keys(user), np.array([ts]), np.array([action], np.int8))
    return out


def test_wishes_hold_from_their_event_time_whatever_the_order_of_arrival():
    wishes = controls((7, 50, IN), (7, 10, FORGET), (7, 30, OUT), (8, 99, FORGET))
    at = np.array([9, 10, 29, 30, 49, 50, 99])
    user = keys(*[7] * 7)
    out = [False, False, False, True, True, False, False]
    assert wishes.opted_out(user, at).tolist() == out
    assert wishes.erased_until(user, at).tolist() == [NEVER, 10, 10, 30, 30, 30, 30]
    assert wishes.erases(user, at, ALWAYS).tolist() == [True] * 5 + [False] * 2
    assert wishes.opted_out(keys(9), np.array([50])).tolist() == [False]


def test_at_the_same_time_the_stricter_wish_wins():
    assert controls((7, 5, OUT), (7, 5, IN)).opted_out(keys(7), np.array([5])).tolist() == [True]


def test_pruning_keeps_what_can_still_matter():
    wishes = controls((7, 1, FORGET), (7, 2, OUT), (7, 3, IN), (7, 4, OUT), (7, 90, IN))
    wishes.prune(50)
    assert len(wishes) == 2
    assert wishes.opted_out(keys(7, 7), np.array([60, 95])).tolist() == [True, False]
    assert wishes.erased_until(keys(7), ALWAYS).tolist() == [4]
    again = Controls()
    again.restore([wishes.snapshot()])
    assert again.snapshot().equals(wishes.snapshot())


def test_who_is_held_out_never_changes():
    users = pa.array([f"u{n}" for n in range(100_000)])
    held_out = is_held_out(hash_strings(users), 0.01)
    assert 900 < held_out.sum() < 1_100
    assert users.filter(pa.array(held_out)).to_pylist()[:3] == ["u162", "u426", "u485"]


def test_hashes_are_those_of_pandas_and_null_is_empty():
    values = ["a", "", "ü" * 300]
    assert hash_strings(pa.array(values)).tolist() == pd.util.hash_array(np.array(values)).tolist()
    assert hash_strings(pa.array([None], pa.string()))[0] == hash_strings(pa.array([""]))[0]


@given(st.lists(st.lists(st.integers(0, 9)), min_size=1), st.integers(0, 9))
@pytest.mark.parametrize("side", ["left", "right"])
def test_search_in_segments_equals_searching_each(side, segments, wanted):
    segments = [sorted(s) for s in segments]
    start = np.cumsum([0, *map(len, segments)])
    flat = np.array([v for s in segments for v in s], np.int64)
    query = np.full(len(segments), wanted)
    found = segment_search(flat, start[:-1], start[1:], query, side) - start[:-1]
    assert found.tolist() == [np.searchsorted(s, wanted, side) for s in segments]
