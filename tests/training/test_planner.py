"""Plans: they cover every record once, survive the planner, and are told alike."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_rec.errors import StateError
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS, Record
from ray_rec.log.base import EventLog, Offsets, create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig
from ray_rec.training.planner import LEARNED_TOPICS, Planner
from ray_rec.training.plans import PlanStore


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
    **settings: Any,
) -> Planner:
    config = TrainingConfig(**{"window_records": 50, "idle_after_s": 10.0, **settings})
    return Planner(log, PlanStore(f"{tmp_path}/plans"), config, end, clock)


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
    plans, number = planner(log, tmp_path), 0
    at = {topic: dict.fromkeys(log.latest(topic), 0) for topic in (EVENTS, EXPOSURES)}
    while (window := plans.decide(number)) is not None:
        assert window.num_records <= 100
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
    log.add_partitions(EVENTS, 3)
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
    told = []
    for number in range(9):
        fill(log, EVENTS, 1, first_ts=1_000 * number)
        told.append(decided(plans.decide(number)).publish)
        now[0] += 0.5
    assert told == ["full", "none", "delta", "none", "delta", "none", "full", "none", "delta"]


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
    told, number = [], 0
    while (window := plans.decide(number)) is not None:
        told.append(window.publish)
        number += 1
    assert told == ["full", *["none"] * (number - 2), "full"]
    assert plans.close(number) is None


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
