"""Popularity by time, against the counts of the stream."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.features.arrays import Int64, table_of
from ray_rec.features.config import DAY_MS
from ray_rec.features.examples import PROMOTED_SCHEMA, TAKEN_SCHEMA, WindowExamples
from ray_rec.features.popularity import Popularity
from ray_rec.training.moments import Moments
from tests.model import toy

ITEM = np.array([0, 1, 0, 2, 0])
NO_RESPONSES = np.zeros((0, 0), np.int64)
TS = np.array([1, 2, 2, 4, 9]) * DAY_MS


def window(item: Int64, ts: Int64, before: Popularity) -> WindowExamples:
    """A window in which these were taken, and what was counted before it."""
    taken = table_of({"item": item.astype(np.int32), "ts": ts}, TAKEN_SCHEMA)
    none = toy.table([])
    return WindowExamples(
        0, none, none, before.features(), before.latest_ms, NO_RESPONSES, {}, taken
    )


def nothing(*half_lives_days: float) -> Popularity:
    counts = Popularity(half_lives_days)
    counts.grow(4)
    return counts


def test_each_moment_counts_what_came_strictly_before_it() -> None:
    moments = Moments.through([window(ITEM, TS, nothing(1.0))], 4, [1.0], most=5)
    assert (moments.at_ms // DAY_MS).tolist() == [1, 2, 4, 9]
    # one half-life is a day: an event of a day before counts a half, of three days before an eighth
    counts = np.expm1(moments.popularity[:, :, 0])
    assert counts[0].tolist() == [0, 0, 0, 0]
    assert counts[1] == pytest.approx([1 / 2, 0, 0, 0])
    assert counts[2] == pytest.approx([1 / 8 + 1 / 4, 1 / 4, 0, 0])
    assert counts[3] == pytest.approx([2**-8 + 2**-7, 2**-7, 2**-5, 0], rel=1e-5)


def test_a_query_has_the_latest_moment_that_is_not_after_it() -> None:
    moments = Moments.through([window(ITEM, TS, nothing(1.0))], 4, [1.0], most=5)
    asked = np.array([0, 1, 3, 4, 100]) * DAY_MS
    assert moments.of(asked).tolist() == [0, 0, 1, 2, 3]


def test_few_moments_are_spread_over_the_events() -> None:
    moments = Moments.through([window(ITEM, TS, nothing(1.0, 28.0))], 4, [1.0, 28.0], most=2)
    assert (moments.at_ms // DAY_MS).tolist() == [1, 9]
    assert moments.popularity.shape == (2, 4, 2)
    counts = Popularity([1.0, 28.0])
    counts.grow(4)
    counts.add(ITEM[:4], TS[:4])
    assert moments.popularity[1] == pytest.approx(counts.features(9 * DAY_MS))


def test_without_events_there_is_one_moment_with_nothing() -> None:
    none = np.zeros(0, np.int64)
    moments = Moments.through([window(none, none, nothing(1.0))], 4, [1.0], most=5)
    assert moments.at_ms.tolist() == [0]
    assert not moments.popularity.any()


def test_windows_go_on_from_what_was_counted_before_them() -> None:
    """Cut after the third event, the moments are those of the whole; the order does not matter."""
    before = nothing(1.0)
    before.add(ITEM[:3], TS[:3])
    cut = [window(ITEM[3:], TS[3:], before), window(ITEM[:3], TS[:3], nothing(1.0))]
    whole = Moments.through([window(ITEM, TS, nothing(1.0))], 4, [1.0])
    found = Moments.through(cut, 4, [1.0])
    assert found.at_ms.tolist() == whole.at_ms.tolist()
    assert found.popularity == pytest.approx(whole.popularity, rel=1e-5)


def test_later_items_are_uncounted_and_many_of_them_have_few_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray_rec.training.moments.MOST_NUMBERS", 12)
    moments = Moments.through([window(ITEM, TS, nothing(1.0))], 6, [1.0])
    assert (moments.at_ms // DAY_MS).tolist() == [1, 9]
    assert moments.popularity.shape == (2, 6, 1)
    assert not moments.popularity[:, 4:].any()


def test_a_window_is_one_moment_for_all() -> None:
    popularity = np.ones((3, 2), np.float32)
    once = Moments.once(popularity)
    assert once.of(np.array([-5, 0, 10**15])).tolist() == [0, 0, 0]
    assert (once.popularity[0] == popularity).all()


def test_promotions_are_told_from_just_after_they_begin() -> None:
    """Item 1 is promoted from day 3 on, wholly, and half from day 8."""
    rows = {"item": [1, 1], "ts": [3 * DAY_MS, 8 * DAY_MS], "shares": [[1.0], [0.5]]}
    before = Popularity([1.0], num_promotions=1)
    before.grow(4)
    made = replace(window(ITEM, TS, before), promoted=pa.table(rows, PROMOTED_SCHEMA))
    moments = Moments.through([made], 4, [1.0], most=9)
    assert moments.at_ms.tolist() == sorted([*TS[[0, 1, 3, 4]], 3 * DAY_MS + 1, 8 * DAY_MS + 1])
    assert moments.popularity[:, 1, 0].tolist() == [0, 0, 1, 1, 0.5, 0.5]
    rule = 1 - 2 ** (-5 / 28)  # after five days
    assert moments.popularity[4, 1, 1] == pytest.approx(rule, rel=1e-5)
    assert not moments.popularity[:, [0, 2, 3], :2].any()
    plain = Moments.through([window(ITEM, TS, nothing(1.0))], 4, [1.0], most=9)
    asked = moments.of(plain.at_ms)
    assert moments.popularity[asked, :, 2:] == pytest.approx(plain.popularity)


def test_many_promotions_leave_half_of_the_moments_to_events() -> None:
    ts = np.arange(100, dtype=np.int64) * 1000
    rows = {"item": ts % 4, "ts": ts, "shares": [[0.5]] * 100}
    before = Popularity([1.0], num_promotions=1)
    before.grow(4)
    made = replace(window(ITEM, TS, before), promoted=pa.table(rows, PROMOTED_SCHEMA))
    moments = Moments.through([made], 4, [1.0], most=8)
    assert (moments.at_ms < DAY_MS).sum() == 4
    assert (moments.at_ms[4:] // DAY_MS).tolist() == [1, 2, 9]  # two of four are of day 2
