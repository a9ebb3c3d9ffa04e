"""A state restored from a snapshot and the changes after it is that state, whatever comes next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.errors import StateError
from ray_rec.features.config import FeatureConfig
from ray_rec.features.part import is_whole
from ray_rec.features.state import FeatureState

from .builders import DAY, T0, Stream, control, event, exposure, item, same

CONFIG = {
    "history_length": 3,
    "covisits": 3,
    "attribution_ms": 3 * DAY,
    "lateness_ms": DAY // 2,
    "dedup_ms": 2 * DAY,
    "half_lives_days": (0.02, 7.0),  # the first is rebased after 5 days
    "held_out_share": 0.3,
    "promotions": ("mailer",),
}
USERS, ITEMS = [f"u{n}" for n in range(9)], "abcdef"


@st.composite
def windows(draw):
    """Return windows over weeks of event time, with everything that can happen in them."""
    now, out = T0, []
    for n in range(draw(st.integers(4, 8))):
        records = []
        for m in range(draw(st.integers(0, 12))):
            now += draw(st.sampled_from([1, DAY // 8, DAY // 8, DAY]))
            ts = now - draw(st.sampled_from([0, 0, DAY // 4, 3 * DAY]))
            user, name = draw(st.sampled_from(USERS)), draw(st.sampled_from(ITEMS))
            request = draw(st.sampled_from([None, "r0-0", "r1-1", "r2-0"]))
            records.append(
                draw(
                    st.sampled_from(
                        [
                            event(user, name, ts, "view"),
                            event(user, name, ts, "purchase", request_id=request),
                            event(user, name, ts, "return"),
                            event(user, name, ts, "view", event_id="again"),
                            exposure(f"r{n}-{m}", user, ts, [name, "g"]),
                            exposure("r0-0", user, ts, []),
                            control(user, draw(st.sampled_from(["forget", "opt_out"])), ts),
                            control(user, "opt_in", ts),
                            item(name, draw(st.sampled_from(["Tea", "Té", None])), price=1.0),
                            item(name, "Tea", ts, promotion=[("mailer", 0.5)]),
                        ]
                    )
                )
            )
        out.append((records, draw(st.sampled_from(["", "", "full", "delta", "delta", "restore"]))))
    return out


def alike(ours, theirs):
    return ours.keys() == theirs.keys() and all(same(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize(
    "bounds",
    [{"user_ttl_days": 4}, {"max_state_mb": 0.006}],  # the latter leaves room for half of the users
    ids=["time to live", "memory"],
)
@given(windows())
@settings(max_examples=75, deadline=None)
def test_a_restored_state_goes_on_as_the_state_itself(bounds, plan):
    config = FeatureConfig(**CONFIG, **bounds)
    plain, told, again = (Stream(FeatureState(config)) for _ in range(3))
    chain = [told.state.snapshot()]
    assert alike(chain[0], again.state.snapshot())
    for records, then in plan:
        one, *others = (stream.window(*records) for stream in (plain, told, again))
        for other in others:
            assert same(one.examples, other.examples)
            assert same(one.items, other.items)
            assert one.popularity.tolist() == other.popularity.tolist()
            assert (one.counts, one.at_ms) == (other.counts, other.at_ms)
        assert plain.state.num_bytes == told.state.num_bytes == again.state.num_bytes
        if then == "full":
            chain = [told.state.snapshot()]
            assert alike(chain[0], again.state.snapshot())
        elif then:
            chain.append(told.state.changes())
            assert alike(chain[-1], again.state.changes())
        if then == "restore":
            again = Stream(FeatureState.restore(config, chain))
    ours = plain.state.snapshot()
    assert alike(ours, told.state.snapshot())
    assert alike(ours, again.state.snapshot())


@given(windows())
@settings(max_examples=75, deadline=None)
def test_the_totals_add_up_after_every_window(plan):
    stream = Stream(**CONFIG)
    for records, _ in plan:
        window = stream.window(*records)
        totals = stream.state.totals
        assert totals.keys() == window.counts.keys() | {"open"}
        taken = ("duplicates", "opted_out", "forgotten", "tokens", "others")
        assert totals["events"] == sum(totals[name] for name in taken)
        left = ("exposure_duplicates", "empty_exposures", "erased_exposures", "closed", "open")
        assert totals["exposures"] == sum(totals[name] for name in left)
        again = FeatureState.restore(stream.state.config, [stream.state.snapshot()])
        assert again.totals == totals
    topics = [topic for records, _ in plan for topic, _ in records]
    totals = {"events": 0, "exposures": 0, "controls": 0, **stream.state.totals}
    for topic in ("events", "exposures", "controls"):
        assert totals[topic] == topics.count(topic)


def test_changes_before_any_snapshot_are_everything():
    stream = Stream()
    stream.window(event("u", "a", T0))
    changes = stream.state.changes()
    assert all(is_whole(table) for table in changes.values())
    again = FeatureState.restore(FeatureConfig(), [changes])
    assert alike(again.snapshot(), stream.state.snapshot())


def test_changes_hold_what_changed_and_no_more():
    stream = Stream(attribution_ms=100, lateness_ms=10, covisits=5)
    stream.window(*[event(f"u{n}", "a", T0, event_id="e") for n in range(50)], item("b", "B"))
    stream.window(exposure("r", "u1", T0 + 1, ["a"]), control("w", "forget", T0))
    stream.state.snapshot()
    stream.window(
        event("u7", "c", T0 + 2, "click"),
        exposure("s", "u8", T0 + 2, ["b"]),  # shows them something, changes nothing they did
        control("u9", "forget", T0 + 2),
    )
    changes = stream.state.changes()
    rows = {name: table.num_rows for name, table in changes.items()}
    assert rows == {
        "progress": 4,  # always whole: the offsets of four topics
        "catalogue": 1,  # c
        "histories": 2,  # u9 gone, u7
        "popularity": 1,
        "covisits": 2,  # c, and a, which u7 took before
        "responses": 0,
        "seen_events": 1,
        "seen_exposures": 1,
        "controls": 1,
        "open_exposures": 1,
        "outcomes": 1,
        "watermark": 2,
    }
    assert changes["histories"].column("user_id").to_pylist() == [None, "u7"]
    assert {n for n, table in changes.items() if is_whole(table)} == {"progress", "watermark"}
    nothing = stream.state.changes()
    assert {n for n, t in nothing.items() if t.num_rows} == {"progress", "watermark"}


def test_exposures_that_closed_were_erased_or_mended_are_told_by_number():
    stream = Stream(attribution_ms=100, lateness_ms=10)
    shown = [exposure(f"r{n}", f"u{n}", T0 + n, ["a"]) for n in range(5)]
    stream.window(*shown, event("u0", "a", T0, "click"), event("u4", "a", T0 + 5, "click"))
    chain = [stream.state.snapshot()]
    stream.window(advance_to_ms=T0 + 101)  # r0 with its click, and r1
    stream.window(control("u2", "forget", T0 + 50), control("u3", "opt_out", T0))
    chain.append(stream.state.changes())
    told = chain[1]["open_exposures"].select(["number", "ts"]).to_pylist()
    # 0, 1 and 3 have gone; 2, erased, may still claim what is not for others: its context goes
    # (with that of 3 it is 5 and 6), then what it showed
    assert [row["number"] for row in told] == [0, 1, 2, 3, 7]
    assert [row["ts"] for row in told] == [None] * 4 + [T0 + 2]
    assert chain[1]["outcomes"].column("number").to_pylist() == [0]
    state = FeatureState.restore(stream.state.config, chain)
    assert state.join.open.column("ts").to_pylist() == [T0 + 4, T0 + 2]
    assert state.join.open.column("erased").to_pylist() == [False, True]
    assert state.join.outcomes.column("ts").to_pylist() == [T0 + 5]
    assert (state.totals["erased_exposures"], state.totals["open"]) == (2, 1)


def test_who_was_dropped_and_came_back_stands_where_they_came_back():
    stream = Stream()
    stream.window(*[event(user, "a", T0) for user in "uvw"])
    chain = [stream.state.snapshot()]
    stream.window(control("u", "forget", T0))
    stream.window(event("u", "b", T0 + 1))
    chain.append(stream.state.changes())
    state = FeatureState.restore(stream.state.config, chain)
    table = state.snapshot()["histories"]
    assert table.column("user_id").to_pylist() == ["v", "w", "u"]
    assert state.histories.last("u").ts.tolist() == [T0 + 1]


def test_changes_alone_are_refused():
    stream = Stream()
    stream.state.snapshot()
    stream.window(event("u", "a", T0))
    with pytest.raises(StateError, match="give the full snapshot first"):
        FeatureState.restore(FeatureConfig(), [stream.state.changes()])


def test_the_bounds_may_be_moved_when_a_state_is_restored():
    stream = Stream()
    stream.window(*[event(f"u{n}", "a", T0 + n) for n in range(40)])
    moved = FeatureConfig(max_state_mb=0.01)
    stream = Stream(FeatureState.restore(moved, [stream.state.snapshot()]))
    assert stream.window().counts["evicted_memory"] > 0


def test_rows_of_the_dropped_are_given_free_and_changes_still_name_the_right_users():
    stream = Stream(user_ttl_days=1, lateness_ms=0)
    chain = [stream.state.snapshot()]
    for day, users in ((0, range(600)), (2, range(600, 1_300)), (4, range(1_300, 2_000))):
        # those of before are idle; with day 4 most rows are theirs, and 700 users move up
        stream.window(*[event(f"u{n}", "a", T0 + day * DAY) for n in users])
        chain.append(stream.state.changes())
    assert not is_whole(chain[-1]["histories"])
    assert chain[-1]["histories"].num_rows == 700 + 700
    assert len(stream.state.histories.index) == 700
    state = FeatureState.restore(stream.state.config, chain)
    assert alike(state.snapshot(), stream.state.snapshot())
    assert stream.history("u1300") == [("a", T0 + 4 * DAY)]


def test_naming_more_users_gone_than_there_are_is_done_by_naming_those_who_are_there():
    stream = Stream()
    stream.window(*[event(user, "a", T0) for user in "uvw"])
    chain = [stream.state.snapshot()]
    stream.window(control("u", "forget", T0), control("v", "forget", T0))
    chain.append(stream.state.changes())
    assert is_whole(chain[1]["histories"])
    state = FeatureState.restore(stream.state.config, chain)
    assert state.snapshot()["histories"].column("user_id").to_pylist() == ["w"]


def test_wishes_made_void_meanwhile_are_so_when_restored():
    stream = Stream(dedup_ms=10, attribution_ms=10, lateness_ms=0)
    stream.window(control("u", "opt_out", T0), control("u", "forget", T0 + 1))
    chain = [stream.state.snapshot()]
    stream.window(control("u", "forget", T0 + 2), advance_to_ms=T0 + 100)
    chain.append(stream.state.changes())
    state = FeatureState.restore(stream.state.config, chain)
    assert state.snapshot()["controls"].column("ts").to_pylist() == [T0, T0 + 2]
