"""The join of exposures and outcomes: every case of docs/events.md, rows worked out by hand.

Attribution takes 100 ms here and lateness is 10 ms; bit 1 is a click, 2 a cart, 4 a purchase.
"""

import numpy as np
import pytest

from .builders import DAY, T0, Stream, control, event, exposure

CLICK, CART, PURCHASE = 1, 2, 4


@pytest.fixture
def stream():
    return Stream(attribution_ms=100, lateness_ms=10)


def close(stream, at=T0 + 10_000):
    return stream.clicks(stream.window(advance_to_ms=at))


def shown(**labels):
    return [(item, n, bits) for n, (item, bits) in enumerate(labels.items(), 1)]


def test_an_exposure_is_emitted_once_when_the_watermark_passes_its_window(stream):
    stream.window(event("u", "old", T0 - 5), exposure("r", "u", T0, ["a", "b"]))
    assert stream.clicks(stream.window(event("u", "a", T0 + 99, "click"))) == {}
    # 109 - 10 = 99 < 100: an outcome of T0 + 99 might still come
    assert (
        stream.clicks(stream.window(event("w", "x", T0 + 109), exposure("s", "w", T0 + 109, [])))
        == {}
    )
    window = stream.window(event("w", "x", T0 + 110), exposure("t", "w", T0 + 110, []))
    assert stream.clicks(window) == {0: (["old"], shown(a=CLICK, b=0))}
    assert window.counts["closed"] == 1
    assert close(stream) == {}


def test_the_row_holds_what_was_shown_and_how(stream):
    items = [
        {"item_id": "a", "position": 3, "score": 1.0, "propensity": 0.25},
        {"item_id": "b", "position": None, "score": None, "propensity": None},
    ]
    stream.window(exposure("r", "u", T0, items))
    (row,) = stream.window(advance_to_ms=T0 + 100).examples.to_pylist()
    assert row["topic_code"] == 1
    assert row["shown_position"] == [3, 2]
    assert row["shown_propensity"][0] == 0.25
    assert row["shown_propensity"][1] != row["shown_propensity"][1]  # NaN: not logged
    assert (row["query_context"], row["query_ts"]) == ([0], [T0])
    assert row["target_item"] == []


def test_an_exposure_without_outcome_is_all_zeros(stream):
    stream.window(exposure("r", "u", T0, ["a"]), event("v", "a", T0 + 1, "click"))
    assert close(stream) == {0: ([], shown(a=0))}  # another user's click is not ours


def test_several_outcomes_set_several_bits_and_repeating_one_changes_nothing(stream):
    stream.window(
        exposure("r", "u", T0, ["a", "b"]),
        event("u", "a", T0 + 1, "click"),
        event("u", "a", T0 + 2, "click"),
        event("u", "a", T0 + 3, "purchase"),
        event("u", "b", T0 + 4, "cart"),
        event("u", "b", T0 + 5, "view"),  # no outcome type
    )
    assert close(stream) == {0: ([], shown(a=CLICK | PURCHASE, b=CART))}


def test_the_window_holds_its_first_moment_and_not_its_last(stream):
    stream.window(
        exposure("r", "u", T0, ["a", "b", "c"]),
        event("u", "a", T0, "click"),
        event("u", "b", T0 + 99, "click"),
        event("u", "c", T0 + 100, "click"),
    )
    assert close(stream)[0][1] == shown(a=CLICK, b=CLICK, c=0)


def test_an_outcome_belongs_to_the_latest_exposure_of_the_item_only(stream):
    stream.window(
        exposure("r", "u", T0, ["a", "b"]),
        exposure("s", "u", T0 + 20, ["a"]),
        event("u", "a", T0 + 10, "click"),
        event("u", "a", T0 + 30, "purchase"),
        event("u", "b", T0 + 30, "purchase"),  # only "r" showed it
    )
    assert close(stream) == {
        0: ([], shown(a=CLICK, b=PURCHASE)),
        1: (["a", "b"][:1], shown(a=PURCHASE)),
    }


def test_a_request_id_decides_against_the_latest_exposure(stream):
    stream.window(
        exposure("r", "u", T0, ["a"]),
        exposure("s", "u", T0 + 20, ["a"]),
        event("u", "a", T0 + 30, "click", request_id="r"),
        event("u", "a", T0 + 31, "cart", request_id="nobody"),  # no fallback to the latest
        event("u", "a", T0 + 100, "purchase", request_id="r"),  # after its window
    )
    found = close(stream)
    assert [found[0][1], found[1][1]] == [shown(a=CLICK), shown(a=0)]


def test_a_request_id_of_another_user_or_item_matches_nothing(stream):
    stream.window(
        exposure("r", "u", T0, ["a"]),
        event("v", "a", T0 + 1, "click", request_id="r"),
        event("u", "z", T0 + 2, "click", request_id="r"),
    )
    assert close(stream)[0][1] == shown(a=0)


def test_with_a_request_id_the_visitors_clock_may_lag_by_the_lateness(stream):
    stream.window(
        exposure("r", "u", T0, ["a", "b", "c"]),
        event("u", "a", T0 - 10, "click", request_id="r"),
        event("u", "b", T0 - 11, "click", request_id="r"),
        event("u", "c", T0 - 1, "click"),
    )
    assert close(stream)[0][1] == shown(a=CLICK, b=0, c=0)


def test_an_outcome_may_arrive_windows_before_its_exposure(stream):
    stream.window(
        event("u", "a", T0 + 1, "click"), event("u", "b", T0 + 9, "click", request_id="r")
    )
    stream.window(event("u", "z", T0 + 9))
    stream.window(exposure("r", "u", T0, ["a", "b"]))
    assert close(stream) == {0: ([], shown(a=CLICK, b=CLICK))}


def test_a_duplicate_exposure_has_no_effect(stream):
    stream.window(exposure("r", "u", T0, ["a"]))
    again = stream.window(exposure("r", "u", T0, ["a"]), exposure("r", "u", T0 + 3, ["b"]))
    assert again.counts["exposure_duplicates"] == 2
    assert close(stream) == {0: ([], shown(a=0))}
    assert stream.window(exposure("r", "u", T0, ["a"])).counts["exposure_duplicates"] == 1


def test_one_request_id_of_two_users_is_two_exposures(stream):
    again = stream.window(
        exposure("r", "u", T0, ["a"]),
        exposure("r", "v", T0, ["a"]),
        event("v", "a", T0 + 1, "click", request_id="r"),
    )
    assert again.counts["exposure_duplicates"] == 0
    assert close(stream) == {0: ([], shown(a=0)), 1: ([], shown(a=CLICK))}


def test_a_late_outcome_that_names_the_request_of_another_user_corrects_nothing(stream):
    stream.window(exposure("r", "u", T0, ["a"]))
    close(stream, T0 + 200)
    late = stream.window(event("v", "a", T0 + 50, "click", request_id="r"))
    assert (late.counts["late"], late.counts["late_outcomes"]) == (1, 0)


def test_a_late_outcome_is_counted_and_changes_nothing(stream):
    stream.window(exposure("r", "u", T0, ["a"]))
    assert close(stream, T0 + 200) == {0: ([], shown(a=0))}
    late = stream.window(
        event("u", "a", T0 + 50, "click", request_id="r"),
        event("u", "a", T0 + 60, "purchase", request_id="r"),
        event("u", "a", T0 + 100, "purchase", request_id="r"),  # late, but after its window too
        event("u", "a", T0 + 70, "click"),  # names nothing: nobody can tell
        event("u", "a", T0 + 71, "click", request_id="nobody"),
        event("u", "a", T0 + 80, "view", request_id="r"),  # no outcome type
    )
    counts = {name: n for name, n in late.counts.items() if name.startswith("late_outcomes")}
    assert counts == {
        "late_outcomes": 2,
        "late_outcomes_click": 1,
        "late_outcomes_cart": 0,
        "late_outcomes_purchase": 1,
    }
    assert late.counts["late"] == 6
    assert close(stream) == {}


def test_what_is_older_than_the_watermark_but_still_waited_for_is_no_correction(stream):
    stream.window(exposure("r", "u", T0, ["a"]), advance_to_ms=T0 + 60)
    late = stream.window(event("u", "a", T0 + 50, "click", request_id="r"))
    assert (late.counts["late"], late.counts["late_outcomes"]) == (1, 0)
    assert close(stream)[0][1] == shown(a=CLICK)


def test_a_duplicate_outcome_has_no_effect(stream):
    click = event("u", "a", T0 + 5, "click", event_id="e")
    stream.window(exposure("r", "u", T0, ["a"]), click)
    again = stream.window(click, exposure("s", "u", T0 + 6, ["a"]))
    assert again.counts["duplicates"] == 1
    assert close(stream) == {0: ([], shown(a=CLICK)), 1: (["a"], shown(a=0))}


def test_an_exposure_that_comes_after_its_window_closes_with_what_is_there(stream):
    stream.window(event("u", "a", T0 + 95, "click"), advance_to_ms=T0 + 150)
    late = stream.window(exposure("r", "u", T0, ["a", "b"]))
    assert late.counts["late_exposures"] == 1
    assert stream.clicks(late) == {0: ([], shown(a=CLICK, b=0))}


def test_the_context_is_that_of_the_exposures_time_not_of_its_closing(stream):
    stream.window(event("u", "before", T0 - 1), event("u", "same", T0))
    stream.window(exposure("r", "u", T0, ["a"]), event("u", "after", T0 + 1))
    stream.window(*[event("u", f"i{n}", T0 + 2 + n % 50) for n in range(60)])  # fills the history
    assert close(stream)[0][0] == ["before"]


def test_an_item_listed_twice_is_labelled_twice(stream):
    stream.window(exposure("r", "u", T0, ["a", "a"]), event("u", "a", T0 + 1, "click"))
    assert close(stream)[0][1] == [("a", 1, CLICK), ("a", 2, CLICK)]


def test_idle_partitions_do_not_hold_the_watermark_back(stream):
    stream.window(exposure("r", "u", T0, ["a"]))
    far = event("v", "x", T0 + 500)
    assert stream.clicks(stream.window(far)) == {}  # exposures/0 stands at T0
    assert stream.clicks(stream.window(idle=(("exposures", 0),))) != {}
    assert stream.state.watermark.value_ms == T0 + 490
    stream.window(event("v", "y", T0 + 600))
    assert stream.state.watermark.value_ms == T0 + 490  # never back


@pytest.mark.parametrize(
    ("action", "at", "kept"),
    [
        ("forget", T0 + 50, False),  # still open: dropped
        ("forget", T0 + 99, False),
        ("forget", T0 + 100, True),  # closed by then, in event time
        ("opt_out", T0 + 50, False),
        ("opt_out", T0 - 50, False),  # made while opted out
        ("opt_in", T0 + 50, True),
        ("forget", T0 - 1, True),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_wishes_drop_exposures_that_were_open_in_event_time(stream, action, at, kept, together):
    wish, made = control("u", action, at), exposure("r", "u", T0, ["a"])
    if together:
        stream.window(wish, made)
    else:
        stream.window(made)
        stream.window(wish)
    assert (close(stream) != {}) == kept


def test_a_policy_may_have_an_attribution_window_of_its_own():
    stream = Stream(attribution_ms=100, lateness_ms=0, attribution_by_policy_ms={"mailing": 1000})
    stream.window(
        exposure("r", "u", T0, ["a"]),
        exposure("m", "v", T0, ["a"], policy="mailing"),
        event("u", "a", T0 + 500, "purchase"),  # over for r
        event("v", "a", T0 + 500, "purchase"),
    )
    assert stream.clicks(stream.window(advance_to_ms=T0 + 999)) == {0: ([], shown(a=0))}
    assert close(stream) == {1: ([], shown(a=PURCHASE))}


@pytest.mark.parametrize("at_once", [True, False])
def test_each_outcome_type_has_its_window_and_the_longest_closes_the_exposure(at_once):
    stream = Stream(
        attribution_ms=100,
        attribution_by_outcome_ms={"click": 50, "purchase": 300},
        attribution_by_policy_ms={"mailing": 200},
        lateness_ms=0,
    )
    stream.window(
        exposure("r", "u", T0, ["a", "b"]),
        exposure("m", "v", T0, ["a", "b"], policy="mailing"),
        *[event(user, "a", T0 + 49, "click") for user in "uv"],
        *[event(user, "b", T0 + 50, "click") for user in "uv"],  # too late for r only
        *[event(user, "a", T0 + 99, "cart") for user in "uv"],
        *[event(user, "b", T0 + 100, "cart") for user in "uv"],  # too late for r only
        *[event(user, "a", T0 + 199, "purchase") for user in "uv"],
        *[event(user, "b", T0 + 200, "purchase") for user in "uv"],  # too late for m only
    )
    page = ([], shown(a=CLICK | CART | PURCHASE, b=PURCHASE))
    mailing = ([], shown(a=CLICK | CART | PURCHASE, b=CLICK | CART))
    if at_once:
        assert close(stream) == {0: page, 1: mailing}
    else:
        assert close(stream, T0 + 199) == {}
        assert close(stream, T0 + 200) == {1: mailing}
        assert close(stream, T0 + 299) == {}
        assert close(stream, T0 + 300) == {0: page}


@pytest.mark.parametrize("at_once", [True, False])
def test_an_outcome_has_one_exposure_though_an_older_one_waits_longer(at_once):
    stream = Stream(attribution_ms=100, attribution_by_policy_ms={"mailing": 1000}, lateness_ms=0)
    stream.window(
        exposure("m", "u", T0, ["a", "b"], policy="mailing"),
        exposure("r", "u", T0 + 20, ["a", "b"]),
        event("u", "a", T0 + 30, "click"),  # the latest that waits is r
        event("u", "b", T0 + 120, "click"),  # r's window is over, the mailing's is not
    )
    mailing, page = ([], shown(a=0, b=CLICK)), ([], shown(a=CLICK, b=0))
    if at_once:
        assert close(stream) == {0: mailing, 1: page}
    else:
        assert close(stream, T0 + 120) == {1: page}
        assert close(stream) == {0: mailing}


@pytest.mark.parametrize("at_once", [True, False])
def test_an_erased_exposure_keeps_its_outcomes_from_others(stream, at_once):
    records = [
        exposure("r", "u", T0, ["a"]),
        exposure("s", "u", T0 + 20, ["a"]),
        event("u", "a", T0 + 30, "click"),
        control("u", "forget", T0 + 110),  # r's window is over, s is open
    ]
    if at_once:
        stream.window(*records)
        waiting = stream.state.join.open.to_pylist()
        assert [row["erased"] for row in waiting] == [False, True]
        assert waiting[1]["token_item"] == waiting[1]["shown_popularity"] == []
        assert close(stream) == {0: ([], shown(a=0))}
    else:
        stream.window(*records[:3])
        assert close(stream, T0 + 100) == {0: ([], shown(a=0))}
        assert stream.window(records[3]).counts["erased_exposures"] == 1
        assert close(stream) == {}


def test_what_was_done_before_an_exposure_may_arrive_after_it(stream):
    stream.window(event("u", "first", T0 - 9))
    stream.window(exposure("r", "u", T0, ["a"]), exposure("n", "new", T0, ["a"]))
    stream.window(
        event("u", "before", T0 - 2),
        event("u", "same", T0),
        event("new", "only", T0 - 1),
        event("u", "between", T0 - 5),
    )
    stream.window(event("u", "older", T0 - 10), event("w", "other", T0 - 1))
    assert close(stream) == {
        0: (["older", "first", "between", "before"], shown(a=0)),
        1: (["only"], shown(a=0)),
    }


def test_a_context_is_whole_when_the_watermark_has_reached_the_exposure(stream):
    stream.window(exposure("r", "u", T0, ["a"]), advance_to_ms=T0)
    assert stream.window(event("u", "late", T0 - 1)).counts["late"] == 1
    assert close(stream) == {0: ([], shown(a=0))}


def test_a_context_holds_the_newest_tokens_whenever_they_came():
    stream = Stream(attribution_ms=100, lateness_ms=10, history_length=2)
    stream.window(event("u", "1", T0 - 8), event("u", "3", T0 - 6))
    stream.window(exposure("r", "u", T0, ["a"]))
    stream.window(event("u", "4", T0 - 5), event("u", "2", T0 - 7))
    assert close(stream)[0][0] == ["3", "4"]


@pytest.mark.parametrize("together", [True, False])
def test_a_wish_from_before_an_exposure_erases_what_was_older(stream, together):
    done = [event("u", "old", T0 - 5), event("u", "out", T0 - 3), exposure("r", "u", T0, ["a"])]
    wishes = [control("u", "opt_out", T0 - 4), control("u", "opt_in", T0 - 2)]
    if together:
        stream.window(done[0], done[1])
        stream.window(*wishes, done[2], event("u", "new", T0 - 1))
    else:
        stream.window(*done)
        stream.window(*wishes, event("u", "new", T0 - 1))
    assert close(stream)[0][0] == ["new"]


def test_shown_items_keep_the_popularity_of_the_start_of_the_window_they_arrived_in(stream):
    stream.window(event("v", "a", T0), event("v", "b", T0), event("w", "b", T0))
    arrived = stream.window(exposure("r", "u", T0 + 1, ["b", "a", "c"]), event("u", "c", T0 + 1))
    stream.window(event("w", "a", T0 + 2), event("w", "b", T0 + 3), event("w", "c", T0 + 3))
    (row,) = [
        r for r in stream.window(advance_to_ms=T0 + DAY).examples.to_pylist() if r["topic_code"]
    ]
    # two counts of b, one of a, none yet of c, over three half-lives each
    expected = np.log1p(np.repeat([2.0, 1.0, 0.0], 3))
    np.testing.assert_allclose(row["shown_popularity"], expected, rtol=1e-6)
    item_rows = np.array(row["shown_item"])
    np.testing.assert_array_equal(
        row["shown_popularity"], arrived.popularity[item_rows].ravel().tolist()
    )


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_an_outcome_changes_no_feature_of_its_exposure(windows):
    """The same stream with and without what the shown items came to: only labels differ."""
    before = [event("v", "a", T0 - 50), event("u", "b", T0 - 40), event("u", "a", T0 - 30)]
    made = exposure("r", "u", T0, ["a", "b"])
    outcomes = [
        event("u", "a", T0 + 1, "click"),
        event("u", "a", T0 + 2, "purchase", request_id="r"),
        event("u", "b", T0 - 1, "cart", request_id="r"),  # its own clock lags
    ]

    def example(answered):
        stream = Stream(attribution_ms=100, lateness_ms=10)
        if windows == 1:
            stream.window(*before, made, *answered)
        elif windows == 2:
            stream.window(*before, made)
            stream.window(*answered)
        else:
            for records in (before, [made], answered):
                stream.window(*records)
        (row,) = [
            row
            for row in stream.window(advance_to_ms=T0 + DAY).examples.to_pylist()
            if row["topic_code"] == 1
        ]
        return row

    answered, ignored = example(outcomes), example([])
    assert answered.pop("shown_labels") == [CLICK | PURCHASE, CART]
    assert ignored.pop("shown_labels") == [0, 0]
    assert answered == ignored
