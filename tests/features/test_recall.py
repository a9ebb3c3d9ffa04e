"""Histories and recall queries, worked out by hand."""

import pytest

from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState

from .builders import DAY, T0, Stream, control, event


def test_each_query_sees_what_came_before_it():
    stream = Stream()
    window = stream.window(event("u", "a", T0), event("u", "b", T0 + 1), event("v", "c", T0 + 2))
    expected = [([], T0, ["a"]), (["a"], T0 + 1, ["b"]), ([], T0 + 2, ["c"])]
    assert stream.queries(window) == expected
    window = stream.window(event("u", "d", T0 + 5))
    assert stream.queries(window) == [(["a", "b"], T0 + 5, ["d"])]
    assert stream.history("u") == [("a", T0), ("b", T0 + 1), ("d", T0 + 5)]


def test_a_basket_is_one_query_with_several_targets_and_none_sees_another():
    stream = Stream()
    stream.window(event("u", "a", T0))
    window = stream.window(event("u", "b", T0 + 1), event("u", "c", T0 + 1))
    assert stream.queries(window) == [(["a"], T0 + 1, ["b", "c"])]
    # the rest of the basket comes a window later: still only what is strictly older
    window = stream.window(event("u", "d", T0 + 1))
    assert stream.queries(window) == [(["a"], T0 + 1, ["d"])]
    assert [i for i, _ in stream.history("u")] == ["a", "b", "c", "d"]


def test_a_late_event_takes_its_place_by_event_time():
    stream = Stream()
    stream.window(event("u", "a", T0), event("u", "c", T0 + 10))
    window = stream.window(event("u", "b", T0 + 5), event("u", "d", T0 + 20))
    assert stream.queries(window) == [
        (["a"], T0 + 5, ["b"]),
        (["a", "b", "c"], T0 + 20, ["d"]),
    ]
    assert [i for i, _ in stream.history("u")] == ["a", "b", "c", "d"]


def test_only_target_types_are_targets_and_tokens():
    stream = Stream()
    window = stream.window(
        event("u", "a", T0, "purchase"),
        event("u", "a", T0 + 1, "return"),
        event("u", "b", T0 + 2, "stare"),  # not configured: "other"
        event("u", "c", T0 + 3, "like"),
    )
    assert stream.queries(window) == [([], T0, ["a"]), (["a"], T0 + 3, ["c"])]
    assert window.counts["tokens"] == 2
    config = FeatureConfig(target_types=("other",))
    other = Stream(FeatureState(config))
    assert other.queries(other.window(event("u", "b", T0, "stare"))) == [([], T0, ["b"])]


def test_histories_keep_the_newest_and_a_token_older_than_all_of_them_is_let_go():
    stream = Stream(history_length=3)
    stream.window(*[event("u", f"i{n}", T0 + n) for n in range(1, 6)])
    assert [i for i, _ in stream.history("u")] == ["i3", "i4", "i5"]
    window = stream.window(event("u", "old", T0))
    assert stream.queries(window) == [([], T0, ["old"])]
    assert [i for i, _ in stream.history("u")] == ["i3", "i4", "i5"]


@pytest.mark.parametrize("per_window", [1, 3, 7, 40])
def test_a_long_run_is_cut_into_rows_and_each_query_keeps_half_a_history(per_window):
    stream = Stream(history_length=6)
    events = [event("u", f"i{n}", T0 + n) for n in range(40)]
    for start in range(0, 40, per_window):
        window = stream.window(*events[start : start + per_window])
        rows = window.examples.to_pylist()
        assert all(len(row["token_item"]) <= 6 for row in rows)
        queries = stream.queries(window)
        assert [t for _, _, t in queries] == [
            [e["item_id"]] for _, e in events[start:][:per_window]
        ]
        for n, (context, _, _) in enumerate(queries, start):
            assert len(context) >= min(n, 3)
            assert context == [f"i{m}" for m in range(n - len(context), n)]


def test_few_new_events_after_a_full_history_share_one_row():
    stream = Stream(history_length=6)
    stream.window(*[event("u", f"i{n}", T0 + n) for n in range(10)])
    window = stream.window(*[event("u", f"j{n}", T0 + 20 + n) for n in range(3)])
    (row,) = window.examples.to_pylist()
    assert row["query_context"] == [4, 5, 6]


def test_a_row_is_named_by_its_first_record():
    stream = Stream()
    window = stream.window(
        event("u", "b", T0 + 9, partition=3),  # offset 0 although later in time
        event("u", "a", T0, partition=3),
        event("v", "c", T0, partition=1),
    )
    names = window.examples.select(["topic_code", "partition", "offset"]).to_pylist()
    assert [tuple(n.values()) for n in names] == [(0, 1, 0), (0, 3, 0)]


def test_an_event_sent_twice_counts_once():
    stream = Stream()
    twice = event("u", "a", T0, event_id="e1")
    window = stream.window(twice, twice)
    assert window.counts["duplicates"] == 1
    window = stream.window(twice, event("v", "a", T0, event_id="e1"))  # another user's e1 counts
    assert window.counts["duplicates"] == 1
    assert len(stream.history("u")) == len(stream.history("v")) == 1
    window = stream.window(event("u", "a", T0 + 8 * DAY, event_id="e1"))
    assert window.counts["duplicates"] == 0


def test_held_out_users_have_rows_that_say_so():
    stream = Stream()
    window = stream.window(event("u162", "a", T0), event("u163", "a", T0))
    assert window.examples.column("held_out").to_pylist() == [True, False]


def test_popularity_is_as_it_was_at_the_start_of_the_window():
    stream = Stream()
    first = stream.window(event("u", "a", T0))
    assert (first.at_ms, first.popularity.tolist()) == (0, [[0.0, 0.0, 0.0]])
    second = stream.window(event("u", "b", T0 + DAY))
    assert second.at_ms == T0
    assert second.popularity.shape == (2, 3)
    assert second.popularity[0] == pytest.approx([0.6931472] * 3)
    assert second.popularity[1].tolist() == [0, 0, 0]


def test_forget_leaves_nothing_and_later_events_count_anew():
    stream = Stream()
    stream.window(event("u", "a", T0), event("v", "a", T0))
    window = stream.window(control("u", "forget", T0 + 5), event("u", "b", T0 + 9))
    assert stream.queries(window) == [([], T0 + 9, ["b"])]
    assert stream.history("u") == [("b", T0 + 9)]
    late = stream.window(event("u", "c", T0 + 4))  # older than the erasure, which is known
    assert late.counts["forgotten"] == 1
    assert stream.queries(late) == []
    stream.window(control("u", "forget", T0 + 99))
    assert "u" not in stream.state.snapshot()["histories"].column("user_id").to_pylist()
    assert stream.history("v") == [("a", T0)]


def test_within_a_window_event_time_decides_what_an_erasure_covers():
    stream = Stream()
    window = stream.window(
        event("u", "a", T0),
        event("u", "b", T0 + 1),
        event("u", "c", T0 + 7),
        event("u", "d", T0 + 8),
        control("u", "forget", T0 + 5),
    )
    assert stream.queries(window) == [
        ([], T0, ["a"]),
        (["a"], T0 + 1, ["b"]),
        ([], T0 + 7, ["c"]),
        (["c"], T0 + 8, ["d"]),
    ]
    assert [i for i, _ in stream.history("u")] == ["c", "d"]


def test_an_erasure_of_the_same_time_is_the_stricter():
    stream = Stream()
    window = stream.window(
        event("u", "a", T0), event("u", "b", T0 + 5), control("u", "forget", T0 + 5)
    )
    assert stream.queries(window) == [([], T0, ["a"]), ([], T0 + 5, ["b"])]
    assert stream.history("u") == []
    late = stream.window(event("u", "c", T0 + 5))
    assert late.counts["forgotten"] == 1
    assert stream.history("u") == []


def test_opted_out_users_leave_no_trace_until_they_opt_in():
    stream = Stream()
    stream.window(event("u", "a", T0))
    window = stream.window(control("u", "opt_out", T0 + 5), event("u", "b", T0 + 6))
    assert window.examples.num_rows == 0
    assert window.counts["opted_out"] == 1
    assert stream.history("u") == []
    assert stream.window(event("u", "c", T0 + 9)).counts["opted_out"] == 1
    window = stream.window(control("u", "opt_in", T0 + 20), event("u", "d", T0 + 21))
    assert stream.queries(window) == [([], T0 + 21, ["d"])]
    assert stream.history("u") == [("d", T0 + 21)]


def test_an_opt_in_without_an_opt_out_erases_nothing():
    stream = Stream()
    stream.window(event("u", "a", T0), control("u", "opt_in", T0 + 1))
    assert stream.history("u") == [("a", T0)]


def test_an_opt_out_that_comes_late_takes_back_what_came_meanwhile():
    stream = Stream()
    stream.window(event("u", "a", T0), event("u", "b", T0 + 9))
    stream.window(control("u", "opt_out", T0 + 5))
    assert stream.history("u") == []


def test_the_users_active_last_stay_when_there_are_too_many():
    # users may take a tenth of 33,000 bytes; a user takes 300, a token 13: ten of one token fit
    stream = Stream(max_state_mb=0.033, dedup_ms=10**9)
    stream.window(*[event("shop", f"i{n}", T0, "return") for n in range(70)])  # the rest: items
    stream.window(*[event(f"u{n}", "a", T0 + n) for n in range(10)])
    window = stream.window(event("u0", "b", T0 + 50), event("new", "a", T0 + 51))
    assert (window.counts["evicted_memory"], window.counts["evicted_idle"]) == (2, 0)
    known = stream.state.snapshot()["histories"].column("user_id").to_pylist()
    # 2,970 bytes stay: new and u0 with two tokens take 639, seven more 313 each
    assert known == ["u0", *[f"u{n}" for n in range(3, 10)], "new"]
    assert [i for i, _ in stream.history("u0")] == ["a", "b"]
    assert stream.history("u1") == []


def test_users_idle_for_their_time_to_live_go_at_the_turn_of_a_day():
    day = T0 - T0 % DAY + DAY
    stream = Stream(user_ttl_days=2, lateness_ms=0)
    stream.window(event("old", "a", day - 1), event("edge", "a", day))
    window = stream.window(event("w", "a", day + 2 * DAY - 1))
    assert window.counts["evicted_idle"] == 0
    window = stream.window(event("w", "b", day + 2 * DAY))
    assert (window.counts["evicted_idle"], window.counts["evicted_memory"]) == (1, 0)
    assert stream.history("old") == []
    assert stream.history("edge") == [("a", day)]
    assert stream.window(event("w", "c", day + 3 * DAY)).counts["evicted_idle"] == 1
    assert stream.history("edge") == []


def test_what_users_cannot_give_back_leaves_them_a_tenth():
    stream = Stream(max_state_mb=0.004)  # less than ten items alone
    stream.window(*[event("u", f"i{n}", T0 + n) for n in range(10)])
    assert stream.state.num_bytes > 4_000
    assert stream.history("u") == []  # 430 bytes, a tenth is 400
    stream.window(event("v", "i0", T0 + 20))
    assert stream.history("v") == [("i0", T0 + 20)]
