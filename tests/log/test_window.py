"""Windows: exact as JSON; `cut` covers a log once, in order, with topics advancing together."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_rec.errors import ConfigError, StateError
from ray_rec.events import Record
from ray_rec.log import EventLog, Window, cut, open_log


def filled(path: Path, times: dict[str, list[int]], partitions: int = 2) -> EventLog:
    log = open_log(f"sqlite:///{path}")
    log.create_topics(dict.fromkeys(times, partitions))
    for topic, stamps in times.items():
        log.append(topic, [Record(str(i).encode(), b"{}", ts) for i, ts in enumerate(stamps)])
    return log


def test_counts_and_ends() -> None:
    window = Window(1, {"events": {0: (2, 5), 1: (0, 0)}, "items": {0: (7, 8)}})
    assert window.num_records == 4
    assert window.ends() == {"events": {0: 5, 1: 0}, "items": {0: 8}}


spans = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))


@given(
    st.builds(
        Window,
        number=st.integers(0, 2**31),
        ranges=st.dictionaries(
            st.text(min_size=1), st.dictionaries(st.integers(0, 99), spans, max_size=3), max_size=3
        ),
        idle=st.lists(st.tuples(st.text(), st.integers(0, 9))).map(tuple),
        advance_to_ms=st.none() | st.integers(0, 10**14),
        replay=st.lists(st.integers(0, 99)).map(tuple),
        rate_scale=st.floats(0, 10),
        set_aside=st.booleans(),
        publish=st.sampled_from(["none", "delta", "full"]),
        lost=st.dictionaries(
            st.text(), st.dictionaries(st.integers(0, 99), st.integers(0, 2**40)), max_size=2
        ),
    )
)
def test_json_keeps_everything(window: Window) -> None:
    assert Window.from_json(window.to_json()) == window


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"number": 1, "ranges": {"a": {"0": [1]}}}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(StateError, match="not a window"):
        Window.from_json(text)


def test_topics_advance_together(tmp_path: Path) -> None:
    times = {"events": list(range(1000, 1100)), "exposures": list(range(1000, 1100, 10))}
    with filled(tmp_path / "log.db", times, partitions=1) as log:
        windows = list(cut(log, ["events", "exposures"], 22))
    assert [w.number for w in windows] == list(range(len(windows)))
    assert len(windows) in (4, 5)
    for window in windows:
        first, last = window.ranges["events"][0]
        shown = window.ranges["exposures"][0]
        assert shown == (-(-first // 10), -(-last // 10))


def test_one_crowded_millisecond_is_split(tmp_path: Path) -> None:
    with filled(tmp_path / "log.db", {"events": [5] * 1000}) as log:
        windows = list(cut(log, ["events"], 100))
    assert len(windows) == 10
    assert {w.num_records for w in windows} <= {99, 100, 101}


def test_from_and_to_offsets(tmp_path: Path) -> None:
    with filled(tmp_path / "log.db", {"events": list(range(100))}, partitions=1) as log:
        windows = list(cut(log, ["events"], 1000, {"events": {0: 10}}, {"events": {0: 40}}, 7))
        assert list(cut(log, ["events"], 5, {"events": {0: 100}})) == []
        with pytest.raises(ConfigError, match="at least 1"):
            list(cut(log, ["events"], 0))
    assert windows == [Window(7, {"events": {0: (10, 40)}})]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    events=st.lists(st.integers(0, 300), max_size=60),
    items=st.lists(st.integers(0, 10**13), max_size=20),
    size=st.integers(1, 30),
)
def test_every_record_lies_in_one_window(
    tmp_path_factory: pytest.TempPathFactory, events: list[int], items: list[int], size: int
) -> None:
    with filled(
        tmp_path_factory.mktemp("cut") / "log.db", {"events": events, "items": items}
    ) as log:
        windows = list(cut(log, ["events", "items"], size))
        assert windows == list(cut(log, ["events", "items"], size))
        at = {"events": log.earliest("events"), "items": log.earliest("items")}
        for window in windows:
            assert 0 < window.num_records <= 1.25 * size + 4
            assert {t: {p: s for p, (s, _) in by.items()} for t, by in window.ranges.items()} == at
            at = window.ends()
        assert at == {"events": log.latest("events"), "items": log.latest("items")}
