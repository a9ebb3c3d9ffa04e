"""Popularity by time, against the counts of the stream."""

import numpy as np
import pytest

from ray_rec.features.config import DAY_MS
from ray_rec.features.popularity import Popularity
from ray_rec.training.moments import Moments

ITEM = np.array([0, 1, 0, 2, 0])
TS = np.array([1, 2, 2, 4, 9]) * DAY_MS


def test_each_moment_counts_what_came_strictly_before_it() -> None:
    moments = Moments.through(ITEM, TS, 4, [1.0], most=5)
    assert (moments.at_ms // DAY_MS).tolist() == [1, 2, 4, 9]
    # one half-life is a day: an event of a day before counts a half, of three days before an eighth
    counts = np.expm1(moments.popularity[:, :, 0])
    assert counts[0].tolist() == [0, 0, 0, 0]
    assert counts[1] == pytest.approx([1 / 2, 0, 0, 0])
    assert counts[2] == pytest.approx([1 / 8 + 1 / 4, 1 / 4, 0, 0])
    assert counts[3] == pytest.approx([2**-8 + 2**-7, 2**-7, 2**-5, 0], rel=1e-5)


def test_a_query_has_the_latest_moment_that_is_not_after_it() -> None:
    moments = Moments.through(ITEM, TS, 4, [1.0], most=5)
    asked = np.array([0, 1, 3, 4, 100]) * DAY_MS
    assert moments.of(asked).tolist() == [0, 0, 1, 2, 3]


def test_few_moments_are_spread_over_the_events() -> None:
    moments = Moments.through(ITEM, TS, 4, [1.0, 28.0], most=2)
    assert (moments.at_ms // DAY_MS).tolist() == [1, 9]
    assert moments.popularity.shape == (2, 4, 2)
    counts = Popularity([1.0, 28.0])
    counts.grow(4)
    counts.add(ITEM[:4], TS[:4])
    assert moments.popularity[1] == pytest.approx(counts.features(9 * DAY_MS))


def test_without_events_there_is_one_moment_with_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    moments = Moments.through(nothing, nothing, 3, [1.0], most=5)
    assert moments.at_ms.tolist() == [0]
    assert not moments.popularity.any()


def test_a_window_is_one_moment_for_all() -> None:
    popularity = np.ones((3, 2), np.float32)
    once = Moments.once(popularity)
    assert once.of(np.array([-5, 0, 10**15])).tolist() == [0, 0, 0]
    assert (once.popularity[0] == popularity).all()
