"""Windows in order, partitions and topics of any number, snapshots, live updates."""

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.errors import StateError
from ray_rec.events.schema import EVENTS
from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window

from .builders import T0, Stream, control, decoded, event, exposure, item, number_offsets, same


def test_windows_come_once_and_in_order():
    stream = Stream()
    stream.window(event("u", "a", T0))
    for number in (0, 2):
        with pytest.raises(StateError, match=f"window {number} was given, the next one is 1"):
            stream.state.apply(Window(number, {}), {})


def test_a_window_may_not_read_what_was_read():
    stream = Stream()
    stream.window(event("u", "a", T0), event("u", "b", T0))
    with pytest.raises(StateError, match="offsets below 2 were applied"):
        stream.state.apply(Window(1, {EVENTS: {0: (1, 3)}}), {})
    stream.state.apply(Window(1, {EVENTS: {0: (2, 2), 1: (0, 0)}}), {})
    assert stream.state.offsets == {EVENTS: {0: 2, 1: 0}}


def test_an_empty_window_gives_nothing():
    window = Stream().window()
    assert window.examples.schema == EXAMPLES_SCHEMA
    assert window.examples.num_rows == window.items.num_rows == 0
    assert window.popularity.shape == (0, 3)
    assert not any(window.counts.values())


def test_items_get_rows_from_records_first_then_by_time_topic_and_offset():
    stream = Stream()
    window = stream.window(
        event("u", "late", T0 + 9),
        event("v", "e", T0, partition=1),
        exposure("r", "u", T0, ["e", "x2", "x1"]),
        item("title", "Title"),
        event("u", "known", T0 - 1),
        item("known", "Known"),
    )
    assert stream.state.catalogue.item_id == ["title", "known", "e", "x2", "x1", "late"]
    assert window.items.column("row").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert window.items.column("text").to_pylist() == ["Title", "Known", "", "", "", ""]
    window = stream.window(item("late", "Now known"), item("title", "Title"))
    assert window.items.select(["row", "text"]).to_pylist() == [{"row": 5, "text": "Now known"}]


def test_the_order_in_which_ranges_were_read_does_not_matter():
    records = number_offsets(
        [event(f"u{n % 3}", f"i{n}", T0 + n // 2, partition=n % 3) for n in range(30)]
        + [exposure(f"r{n}", f"u{n}", T0, [f"i{n}"], partition=n) for n in range(3)]
    )
    window = Window(0, {}, advance_to_ms=T0 + 10**9)
    outs = []
    for order in (records, records[::-1]):
        state = FeatureState(FeatureConfig())
        outs.append((state.apply(window, decoded(order)), state.snapshot()))
    (one, first), (other, second) = outs
    assert same(one.examples, other.examples)
    assert same(one.items, other.items)
    assert all(same(first[name], second[name]) for name in first)


def test_without_examples_the_state_moves_alike():
    records = [event("u", "a", T0), exposure("r", "u", T0 + 1, ["a"]), control("v", "forget", T0)]
    with_rows, without = Stream(), Stream()
    for advance in (None, T0 + 10**8):
        with_rows.window(*records, advance_to_ms=advance)
        ranges = {}
        tables = decoded(number_offsets(records)) if advance is None else {}
        plan = Window(without.state.number, ranges, advance_to_ms=advance)
        assert without.state.apply(plan, tables, examples=False).examples.num_rows == 0
        records = []
    ours, theirs = with_rows.state.snapshot(), without.state.snapshot()
    assert all(same(ours[name], theirs[name]) for name in ours if name != "progress")


def test_a_live_follower_has_the_same_histories_popularity_and_catalogue():
    records = [
        item("a", "A"),
        event("u", "a", T0),
        event("u", "b", T0 + 1),
        event("u", "b", T0 + 1),
        control("v", "opt_out", T0),
        event("v", "b", T0 + 2),
    ]
    stream, live = Stream(), FeatureState(FeatureConfig())
    stream.window(*records)
    for record in number_offsets(records):
        live.update(decoded([record]))
    ours, theirs = stream.state.snapshot(), live.snapshot()
    for name in ("histories", "catalogue", "controls"):
        assert same(ours[name], theirs[name])
    assert live.number == 0
    assert live.histories.last("u").item.tolist() == [0, 1]
    live_counts, counts = live.popularity.features(), stream.state.popularity.features()
    np.testing.assert_allclose(live_counts, counts, rtol=1e-6)


def test_a_user_with_ten_thousand_events_keeps_the_newest():
    stream = Stream(history_length=50)
    made = stream.window(*(event("ann", f"i{n % 300}", T0 + n) for n in range(10_000)))
    assert sum(map(len, made.examples["target_item"].to_pylist())) == 10_000
    kept = stream.state.histories.last("ann")
    assert kept.ts.tolist() == list(range(T0 + 9_950, T0 + 10_000))
    assert stream.state.totals["tokens"] == 10_000


def test_an_unknown_user_has_an_empty_history():
    history = FeatureState(FeatureConfig()).histories.last("nobody")
    assert [len(part) for part in history] == [0, 0, 0]
    assert (history.item.dtype, history.ts.dtype) == (np.int32, np.int64)


def test_a_snapshot_of_another_configuration_is_refused_by_the_name_of_the_key():
    tables = FeatureState(FeatureConfig()).snapshot()
    with pytest.raises(StateError, match=r"features\.history_length = 50, not 20"):
        FeatureState.restore(FeatureConfig(history_length=20), [tables])


def test_tables_that_are_no_snapshot_are_refused():
    with pytest.raises(StateError, match="histories"):
        FeatureState.restore(FeatureConfig(), [{"progress": pa.table({})}])
