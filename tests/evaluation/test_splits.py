"""Splits by hand: what is learned, what is asked, what may be known, and nothing of the future."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.splits import (
    Split,
    TimeOptions,
    global_time,
    item_holdout,
    leave_one_out,
    validation_time,
)
from ray_rec.evaluation.asking.tables import Events
from tests.evaluation.tables import Taken, table

PAST_AND_FUTURE = [
    ("ann", "milk", 1),
    ("ann", "bread", 2),
    ("ann", "tea", 9),
    ("ann", "milk", 10),
    ("bob", "milk", 3),
    ("bob", "tea", 4),
    ("cem", "tea", 9),
]
HALF = TimeOptions(quantile=0.5)  # of seven times the fourth: 4


def asked(split: Split) -> list[tuple[str, int, list[str]]]:
    """Return (item, ts, items known before it) of each question, by time."""
    queries, names = split.queries(), split.events.item_ids
    return [
        (names[item], int(ts), [names[known] for known in history.item])
        for item, ts, history in zip(
            queries.target_item, queries.ts, queries.histories, strict=True
        )
    ]


def learned(split: Split) -> set[tuple[int, str, int]]:
    done = split.training()
    names = [split.events.item_ids[item] for item in done.item]
    return set(zip(done.user.tolist(), names, done.ts.tolist(), strict=True))


def test_leave_one_out_asks_for_the_last_of_three_or_more() -> None:
    split = leave_one_out(Events.of(table(PAST_AND_FUTURE)))
    assert asked(split) == [("milk", 10, ["milk", "bread", "tea"])]
    assert learned(split) == {
        (0, "milk", 1),
        (0, "bread", 2),
        (0, "tea", 9),
        (1, "milk", 3),
        (1, "tea", 4),
        (2, "tea", 9),
    }


def test_global_time_asks_for_all_that_known_users_do_later() -> None:
    split = global_time(Events.of(table(PAST_AND_FUTURE)), HALF)
    assert asked(split) == [
        ("tea", 9, ["milk", "bread"]),
        ("milk", 10, ["milk", "bread", "tea"]),
    ]
    assert learned(split) == {(0, "milk", 1), (0, "bread", 2), (1, "milk", 3), (1, "tea", 4)}
    fresh = split.queries().fresh
    assert list(zip(fresh.user.tolist(), fresh.ts.tolist(), strict=True)) == [
        (0, 9),
        (0, 10),
        (2, 9),
    ]


def test_global_time_may_ask_for_the_last_only() -> None:
    split = global_time(Events.of(table(PAST_AND_FUTURE)), TimeOptions(0.5, last_only=True))
    assert asked(split) == [("milk", 10, ["milk", "bread", "tea"])]


def test_item_holdout_lets_nobody_know_what_it_holds() -> None:
    taken = [("ann", f"i{n}", n) for n in range(200)]
    split = item_holdout(Events.of(table(taken)), 0.25, TimeOptions(0.5))
    held = {name for name in split.events.item_ids if name not in known_items(split)}
    assert 25 <= len(held) <= 75  # of 200 with a chance of a quarter each
    assert {item for item, _, _ in asked(split)} == {f"i{n}" for n in range(100, 200)}
    assert all(not held & set(before) for _, _, before in asked(split))
    again = item_holdout(Events.of(table(taken[::-1])), 0.25, TimeOptions(0.5))
    assert known_items(again) == known_items(split)


def known_items(split: Split) -> set[str]:
    rows = (split.training().item, split.queries().fresh.item)
    return {split.events.item_ids[item] for item in np.concatenate(rows)}


def test_targets_tell_how_often_their_item_was_learned() -> None:
    split = global_time(Events.of(table(PAST_AND_FUTURE)), HALF)
    assert split.times_learned().tolist() == [1, 2]


def test_repeats_are_left_out_when_they_may_not_be_recommended() -> None:
    split = global_time(Events.of(table(PAST_AND_FUTURE)), HALF).without_repeats()
    assert [item for item, _, _ in asked(split)] == ["tea"]
    with pytest.raises(DataError, match=r"every later event repeats .*--repeats"):
        leave_one_out(Events.of(table(PAST_AND_FUTURE))).without_repeats()


def test_a_basket_is_not_known_to_itself() -> None:
    taken = [("ann", "milk", 1), *(("ann", f"i{n}", 5) for n in range(4))]
    strict = global_time(Events.of(table(taken)), TimeOptions(0.2))
    assert [before for _, _, before in asked(strict)] == [["milk"]] * 4
    ordered = global_time(Events.of(table(taken)), TimeOptions(0.2, same_time=True))
    assert [len(before) for _, _, before in asked(ordered)] == [1, 2, 3, 4]


def test_equal_times_are_in_an_order_that_ids_do_not_tell() -> None:
    users, items = [f"u{n}" for n in range(200)], ["a", "b", "c"]
    taken = [(user, item, 5) for user in users for item in items]
    last = [item for item, _, _ in asked(leave_one_out(Events.of(table(taken))))]
    # A fair order makes each item the last of 67 users, give or take 6.7.
    assert all(40 < last.count(item) < 94 for item in items)
    shuffled = [taken[place] for place in np.random.default_rng(0).permutation(len(taken))]
    events = Events.of(table(sorted(shuffled, key=lambda event: event[0])), items=items)
    assert sorted(last) == sorted(item for item, _, _ in asked(leave_one_out(events)))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 9)), min_size=1
    ),
    st.sampled_from([0.2, 0.5, 0.8]),
)
def test_no_question_knows_its_own_time_or_later(taken: list[Taken], quantile: float) -> None:
    try:
        split = global_time(Events.of(table(taken)), TimeOptions(quantile))
    except DataError:
        return
    queries = split.queries()
    assert split.training().ts.max() < queries.ts.min()
    for user, ts, history in zip(queries.user, queries.ts, queries.histories, strict=True):
        every = split.events.ts[split.events.user == user]
        assert history.ts.tolist() == sorted(every[every < ts].tolist())


# bad input


def test_a_stretch_without_events_is_named() -> None:
    with pytest.raises(DataError, match="none of 0 events"):
        Events.of(table([]))


def test_types_that_are_not_learned_are_named() -> None:
    events = table([("ann", "milk", 1)], event_type="review")
    with pytest.raises(DataError, match=r"found types \['review'\].*features.target_types"):
        Events.of(events)


def test_events_without_an_item_are_left_out() -> None:
    events = table([("ann", "milk", 1), ("ann", None, 2)])
    assert len(Events.of(events)) == 1


def test_ids_may_be_numbers() -> None:
    events = pa.table({"user_id": [7], "item_id": [9], "event_type": ["view"], "ts": [1]})
    assert Events.of(events).item_ids == ["9"]


def test_one_moment_cannot_be_split_by_time() -> None:
    with pytest.raises(DataError, match="take a longer stretch"):
        global_time(Events.of(table([("ann", "milk", 1), ("ann", "tea", 1)])))


def test_short_histories_leave_nothing_out() -> None:
    with pytest.raises(DataError, match="no user has 3 events, the most are 2"):
        leave_one_out(Events.of(table([("ann", "milk", 1), ("ann", "tea", 2)])))


def test_one_user_is_enough() -> None:
    split = leave_one_out(Events.of(table([("ann", item, n) for n, item in enumerate("xyz")])))
    assert asked(split) == [("z", 2, ["x", "y"])]


def test_shares_outside_of_0_and_1_are_refused() -> None:
    events = Events.of(table(PAST_AND_FUTURE))
    with pytest.raises(ConfigError, match=r"quantile is 1\.0"):
        TimeOptions(1.0)
    with pytest.raises(ConfigError, match="share is 0"):
        item_holdout(events, 0)


# a validation stretch


TEN_DAYS = [("ann", f"i{day}", day) for day in range(10)] + [("bob", "i3", 3), ("bob", "late", 9)]


def test_a_validation_stretch_ends_before_the_test_period() -> None:
    split = validation_time(Events.of(table(TEN_DAYS)), test=0.25, validation=0.25)
    # twelve times 0 1 2 3 3 4 5 6 7 8 9 9: three quarters of them until 7, half of them until 4
    assert asked(split) == [
        ("i5", 5, ["i0", "i1", "i2", "i3", "i4"]),
        ("i6", 6, ["i0", "i1", "i2", "i3", "i4", "i5"]),
        ("i7", 7, ["i0", "i1", "i2", "i3", "i4", "i5", "i6"]),
    ]
    assert split.training().ts.max() == 4
    assert split.events.ts[split.known].max() == 7
    assert "late" in split.events.item_ids, "the catalogue stays whole"


@pytest.mark.parametrize("test", [0.0, 0.1, 0.25])
def test_what_a_test_asks_for_is_in_no_validation(test: float) -> None:
    events = Events.of(table(TEN_DAYS))
    split = validation_time(events, test, validation=0.3)
    if test:
        later = global_time(events, TimeOptions(1 - test))
        assert split.events.ts.max() < events.ts[later.target].min()
        assert len(split.events) == later.train.sum()
    else:
        assert len(split.events) == len(events)


@pytest.mark.parametrize(("test", "validation"), [(-0.1, 0.1), (0.1, 0.0), (0.5, 0.5)])
def test_shares_that_leave_nothing_are_refused(test: float, validation: float) -> None:
    with pytest.raises(ConfigError, match="leave some to learn"):
        validation_time(Events.of(table(TEN_DAYS)), test, validation)
