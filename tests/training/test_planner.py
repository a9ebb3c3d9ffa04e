"""Plans: they cover every record once, survive the planner, and are told alike."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_rec.errors import ConfigError, StateError
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS, Record
from ray_rec.log.base import EventLog, Offsets, create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig
from ray_rec.training.planner import LEARNED_TOPICS, Planner
from ray_rec.training.plans import PlanStore, check_plans


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    create_standard_topics(log, partitions=2)
    return log


def fill(log: EventLog, topic: str, count: int, first_ts: int = 1_000) -> None:
    log.append(topic, [Record(f"u{i % 7}".encode(), b"{}", first_ts + i) for i in range(count)])


def planner(
    log: EventLog,
    tmp_path: Path,
    end: dict[str, Offsets] | None = None,
    clock: Callable[[], float] = time.time,
    given: PlanStore | None = None,
    place: str = "plans",
    **settings: Any,
) -> Planner:
    config = TrainingConfig(**{"window_records": 50, "idle_after_s": 10.0, **settings})
    store = PlanStore(f"{tmp_path}/{place}")
    return Planner(log, store, config, end=end, given=given, clock=clock)


def decided(window: Window | None) -> Window:
    assert window is not None
    return window


def ends(log: EventLog) -> dict[str, Offsets]:
    return {topic: log.latest(topic) for topic in LEARNED_TOPICS}


def test_small_news_is_one_window_that_names_every_partition(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 20)
    window = planner(log, tmp_path).decide(0)
    assert window is not None
    assert window.num_records == 20
    assert set(window.ranges) == {"items", "events", "exposures", "controls"}
    assert window.ranges[ITEMS] == {0: (0, 0), 1: (0, 0)}
    assert window.ends()[EVENTS] == log.latest(EVENTS)


def test_nothing_new_is_no_window(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 5)
    plans = planner(log, tmp_path)
    assert plans.decide(0) is not None
    assert plans.decide(1) is None


def test_a_backlog_is_cut_into_windows_that_cover_every_record_once(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, EVENTS, 300)
    fill(log, EXPOSURES, 120)
    plans, number = planner(log, tmp_path, max_window_records=50), 0
    at = {topic: dict.fromkeys(log.latest(topic), 0) for topic in (EVENTS, EXPOSURES)}
    while (window := plans.decide(number)) is not None:
        assert window.num_records <= 63  # 50, and a quarter more at most
        for topic in at:
            for partition, (start, end) in window.ranges[topic].items():
                assert start == at[topic][partition]
                at[topic][partition] = end
        number += 1
    assert at == {topic: log.latest(topic) for topic in at}
    assert number >= 5


def test_a_plan_is_told_alike_after_more_came_and_by_another_planner(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, EVENTS, 20)
    first = planner(log, tmp_path).decide(0)
    fill(log, EVENTS, 20, first_ts=5_000)
    again = planner(log, tmp_path)
    assert again.decide(0) == first
    following = again.decide(1)
    assert following is not None
    assert following.num_records == 20
    assert again.current == following


def test_a_bounded_plan_ends_where_it_was_told_to(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 20)
    end = {topic: log.latest(topic) for topic in (ITEMS, EVENTS, EXPOSURES)}
    fill(log, EVENTS, 20, first_ts=5_000)
    plans = planner(log, tmp_path, end=end)
    window = plans.decide(0)
    assert window is not None
    assert window.num_records == 20
    assert plans.decide(1) is None
    assert plans.exhausted()


def test_a_partition_without_news_becomes_idle(log: EventLog, tmp_path: Path) -> None:
    now = [0.0]
    plans = planner(log, tmp_path, clock=lambda: now[0])
    fill(log, EVENTS, 20)
    first = plans.decide(0)
    now[0] = 11.0
    fill(log, EVENTS, 20, first_ts=5_000)
    second = plans.decide(1)
    assert first is not None
    assert second is not None
    assert first.idle == ()
    assert second.idle == ((EXPOSURES, 0), (EXPOSURES, 1))


def test_a_partition_added_later_is_read_from_its_beginning(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 20)
    plans = planner(log, tmp_path)
    plans.decide(0)
    for topic in (EVENTS, EXPOSURES, CONTROLS):
        log.add_partitions(topic, 3)
    fill(log, EVENTS, 40, first_ts=5_000)
    window = plans.decide(1)
    assert window is not None
    assert window.ranges[EVENTS][2] == (0, log.latest(EVENTS)[2])
    assert window.num_records == 40


def test_versions_come_by_the_interval_and_a_full_one_in_three(
    log: EventLog, tmp_path: Path
) -> None:
    now = [0.0]
    plans = planner(
        log, tmp_path, clock=lambda: now[0], publish_interval_s=1.0, full_every=3, idle_after_s=99
    )
    publish = []
    for number in range(9):
        fill(log, EVENTS, 1, first_ts=1_000 * number)
        publish.append(decided(plans.decide(number)).publish)
        now[0] += 0.5
    assert publish == ["full", "none", "delta", "none", "delta", "none", "full", "none", "delta"]


def test_what_was_learned_last_is_published_though_nothing_new_comes(
    log: EventLog, tmp_path: Path
) -> None:
    now = [0.0]
    plans = planner(log, tmp_path, clock=lambda: now[0], publish_interval_s=1.0)
    fill(log, EVENTS, 20)
    plans.decide(0)
    fill(log, EVENTS, 20, first_ts=5_000)
    now[0] = 0.4
    assert decided(plans.decide(1)).publish == "none"
    now[0] = 0.9
    assert plans.decide(2) is None
    now[0] = 1.0
    empty = decided(plans.decide(2))
    assert (empty.num_records, empty.publish) == (0, "delta")
    assert empty.ends() == ends(log)
    now[0] = 9.0
    assert plans.decide(3) is None


def test_a_bounded_run_ends_with_a_full_version(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 200)
    plans = planner(log, tmp_path, end=ends(log), publish_interval_s=1e9)
    publish = [window.publish for window in told(plans)]
    assert publish == ["full", *["none"] * (len(publish) - 2), "full"]
    assert plans.close(len(publish)) is None


def test_versions_may_be_left_to_the_end_of_a_run(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 200)
    plans = planner(log, tmp_path, end=ends(log), publish_interval_s=0.0, publish="end")
    publish = [window.publish for window in told(plans)]
    assert publish == [*["none"] * (len(publish) - 1), "full"]
    assert len(publish) > 2


def test_a_stopped_run_ends_with_a_full_version(log: EventLog, tmp_path: Path) -> None:
    plans = planner(log, tmp_path, publish_interval_s=1e9)
    assert plans.close(0) is None
    for number in range(2):
        fill(log, EVENTS, 20, first_ts=5_000 * (number + 1))
        plans.decide(number)
    fill(log, EVENTS, 20, first_ts=50_000)
    assert decided(plans.close(1)).publish == "none"
    last = decided(plans.close(2))
    assert (last.num_records, last.publish) == (0, "full")
    assert plans.close(3) is None
    after = decided(planner(log, tmp_path).decide(3))
    assert after.num_records == 20
    assert after.ends() == ends(log)


def test_an_amended_plan_is_told_from_then_on(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 20)
    plans = planner(log, tmp_path)
    first = decided(plans.decide(0))
    slower = replace(first, rate_scale=0.5)
    aside = replace(slower, set_aside=True)
    for revision in (slower, slower, aside):
        plans.amend(revision)
        assert plans.current == plans.decide(0) == revision
        assert planner(log, tmp_path).decide(0) == revision
    names = sorted(path.name for path in Path(f"{tmp_path}/plans").rglob("*.json"))
    assert names == ["000000000000.1.json", "000000000000.2.json", "000000000000.json"]
    kept = (Path(f"{tmp_path}/plans") / "000000000" / "000000000000.json").read_text()
    assert Window.from_json(kept) == first
    with pytest.raises(StateError, match="no plan 7"):
        plans.amend(replace(first, number=7))


def test_plans_are_listed_and_pruned_by_whole_folders(tmp_path: Path) -> None:
    plans = PlanStore(f"{tmp_path}/plans")
    numbers = [0, 1, 999, 1000, 2000, 10_000]
    for number in numbers:
        plans.put(Window(number, {}))
    plans.amend(Window(10_000, {}, rate_scale=0.5))
    assert list(plans.numbers()) == numbers
    plans.prune(1999)
    assert list(plans.numbers()) == [1000, 2000, 10_000]
    assert plans.get(999) is None
    plans.prune(2000)
    assert list(plans.numbers()) == [2000, 10_000]


def test_a_backlog_is_told_ahead_and_what_just_comes_in_is_not(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, EVENTS, 120)
    plans = planner(log, tmp_path)
    first = plans.decide(0)
    second = plans.ahead(1)
    assert first is not None
    assert second is not None
    assert plans.ahead(1) == plans.decide(1) == second
    while plans.ahead(second.number + 1) is not None:
        second = plans.ahead(second.number + 1) or second
    assert second.ends()[EVENTS] == log.latest(EVENTS)
    fill(log, EVENTS, 10, first_ts=9_000)
    assert plans.ahead(second.number + 1) is None
    assert plans.decide(second.number + 1) is not None


def test_a_stopped_planner_tells_ahead_only_what_was_decided(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 120)
    plans = planner(log, tmp_path)
    plans.decide(0)
    assert plans.ahead(1, decide=False) is None
    assert plans.decide(1) is not None
    assert plans.ahead(1, decide=False) is not None


def told(plans: Planner, first: int = 0) -> list[Window]:
    windows: list[Window] = []
    while (window := plans.decide(first + len(windows))) is not None:
        windows.append(window)
    return windows


def test_less_than_a_window_waits_for_more_and_a_whole_one_does_not(
    log: EventLog, tmp_path: Path
) -> None:
    now = [0.0]
    plans = planner(log, tmp_path, clock=lambda: now[0], window_interval_ms=500)
    fill(log, EVENTS, 10)
    assert plans.decide(0) is None
    now[0] = 0.4
    fill(log, EVENTS, 10, first_ts=2_000)
    assert plans.decide(0) is None
    now[0] = 0.5
    assert decided(plans.decide(0)).num_records == 20
    fill(log, EVENTS, 10, first_ts=3_000)
    assert plans.decide(1) is None
    fill(log, EVENTS, 40, first_ts=4_000)
    assert decided(plans.decide(1)).num_records == 50
    fill(log, EVENTS, 10, first_ts=5_000)
    bounded = planner(log, tmp_path, end=ends(log), window_interval_ms=500)
    assert decided(bounded.decide(2)).num_records == 10


def test_a_stream_that_is_behind_takes_larger_windows_until_it_is_level(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, EVENTS, 1_500)
    plans = planner(log, tmp_path, max_window_records=300)
    sizes = [window.num_records for window in told(plans)]
    assert sum(sizes) == 1_500
    assert sizes[0] <= 63  # 50, and a quarter more at most
    assert 300 <= max(sizes) <= 375
    assert plans.measures()["waiting"] == 0
    fill(log, EVENTS, 60, first_ts=50_000)
    assert told(plans, len(sizes))[0].num_records <= 63


def test_what_waits_beyond_a_window_is_told(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 120)
    plans = planner(log, tmp_path)
    first = decided(plans.decide(0))
    assert plans.measures() == {"waiting": 120 - first.num_records, "lost": 0, "held_s": 0.0}


def test_windows_are_smaller_where_records_are_large(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 200)
    plans = planner(log, tmp_path, window_bytes=50_000)
    first = decided(plans.decide(0))
    assert first.num_records <= 49  # 50,000 / 1,024, before any is known
    plans.observe(0, {EVENTS: first.num_records * 4_000})
    rest = [window.num_records for window in told(plans, 1)]
    assert max(rest) <= 12
    assert sum(rest) == 200 - first.num_records


def test_replayed_windows_lie_in_the_horizon_and_are_not_set_aside_or_empty(
    log: EventLog, tmp_path: Path
) -> None:
    plans = planner(log, tmp_path, replay_windows=2, replay_horizon=5, publish_interval_s=0.0)
    for number in range(12):
        fill(log, EVENTS, 5, first_ts=1_000 * (number + 1))
        window = decided(plans.decide(number))
        allowed = {k for k in range(max(0, number - 5), number - 1) if k not in (3, 7)}
        assert set(window.replay) <= allowed
        assert len(window.replay) == len(set(window.replay)) == min(2, len(allowed))
        if number in (3, 7):
            plans.amend(replace(window, set_aside=True))
    again = planner(log, tmp_path, place="again", replay_windows=2, replay_horizon=5)
    assert again.decide(0) is not None


def test_given_plans_are_repeated_to_their_end_and_kept(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 200)
    first = planner(log, tmp_path, publish_interval_s=0.0)
    first.amend(replace(decided(first.decide(0)), rate_scale=0.5))
    windows = told(first)
    fill(log, EVENTS, 50, first_ts=50_000)
    given = PlanStore(f"{tmp_path}/plans")
    again = planner(log, tmp_path, given=given, place="again")
    assert told(again) == windows
    assert windows[0].rate_scale == 0.5
    assert again.exhausted()
    assert again.close(len(windows)) is None
    assert told(planner(log, tmp_path, given=given, place="again")) == windows
    assert list(PlanStore(f"{tmp_path}/again").numbers()) == list(range(len(windows)))


def test_given_plans_are_not_mixed_with_a_runs_own(log: EventLog, tmp_path: Path) -> None:
    fill(log, EVENTS, 20)
    planner(log, tmp_path).decide(0)
    fill(log, EVENTS, 20, first_ts=5_000)
    planner(log, tmp_path, place="own").decide(0)
    mixed = planner(log, tmp_path, given=PlanStore(f"{tmp_path}/plans"), place="own")
    with pytest.raises(ConfigError, match="a state_dir and registry of their own"):
        mixed.decide(0)


def test_plans_to_be_repeated_are_all_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no plans"):
        check_plans(f"{tmp_path}/none")
    plans = PlanStore(f"{tmp_path}/plans")
    for number in (0, 1, 3):
        plans.put(Window(number, {}))
    with pytest.raises(ConfigError, match="lacks plan 2"):
        check_plans(plans.url)
    plans.put(Window(2, {}))
    check_plans(plans.url)


def test_a_log_that_is_shorter_than_the_plans_holds_windows_back(tmp_path: Path) -> None:
    long = open_log(f"sqlite:///{tmp_path}/long.db")
    short = open_log(f"sqlite:///{tmp_path}/short.db")
    for log, count in ((long, 20), (short, 10)):
        create_standard_topics(log, partitions=2)
        fill(log, EVENTS, count)
    assert planner(long, tmp_path).decide(0) is not None
    now = [0.0]
    plans = planner(short, tmp_path, clock=lambda: now[0])
    assert plans.decide(1) is None
    assert "is this the log that the offsets came from?" in plans.held
    now[0] = 2.0
    assert plans.measures()["held_s"] == 2.0
    fill(short, EVENTS, 20)
    assert decided(plans.decide(1)).num_records == 10
    now[0] = 3.0
    assert plans.held == ""
    assert plans.measures()["held_s"] == 2.0
