"""Plans: they cover every record once, survive the planner, and are told alike."""

from pathlib import Path

import pytest

from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS, Record
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.training.config import TrainingConfig
from ray_rec.training.planner import Planner
from ray_rec.training.plans import PlanStore


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    create_standard_topics(log, partitions=2)
    return log


def fill(log: EventLog, topic: str, count: int, first_ts: int = 1_000) -> None:
    log.append(topic, [Record(f"u{i % 7}".encode(), b"{}", first_ts + i) for i in range(count)])


def planner(log: EventLog, tmp_path: Path, records: int = 50, **kwargs: object) -> Planner:
    config = TrainingConfig(window_records=records, idle_after_s=10)
    return Planner(log, PlanStore(f"{tmp_path}/plans"), config, **kwargs)  # type: ignore[arg-type]


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
