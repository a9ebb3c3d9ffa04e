"""Plans over both real logs: partitions added to a running stream, and what retention deleted."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, TopicPartition

from ray_rec.errors import OffsetGap
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES
from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.log.base import EventLog, Offsets, Ranges, check_ranges, create_standard_topics
from ray_rec.log.kafka import KafkaLog
from ray_rec.log.reading import read_decoded
from ray_rec.log.sqlite import SqliteLog
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig
from ray_rec.training.planner import Planner
from ray_rec.training.plans import PlanStore
from tests.training.shop import START_MS, fill_items, fill_visits

FEATURES = FeatureConfig(attribution_ms=60_000, lateness_ms=0, held_out_share=0.0)


class Trimmed(SqliteLog):
    """A SQLite log with a retention of its own: what lies before `first` cannot be read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.first: dict[tuple[str, int], int] = {}

    def earliest(self, topic: str) -> Offsets:
        return {p: self.first.get((topic, p), 0) for p in super().earliest(topic)}

    def extent(self, topics: Any) -> Ranges:
        return {
            topic: {p: (first, self.latest(topic)[p]) for p, first in self.earliest(topic).items()}
            for topic in topics
        }

    def read(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], batch_records: int = 10_000
    ) -> Iterator[pa.Table]:
        check_ranges(topic, ranges, self.earliest(topic), self.latest(topic))
        yield from super().read(topic, ranges, batch_records)


Delete = Callable[[str, int, int], None]
"""Delete the records of a topic's partition before an offset."""


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_and_delete(
    request: pytest.FixtureRequest, sqlite_url: str
) -> Iterator[tuple[EventLog, Delete]]:
    if request.param == "sqlite":
        with Trimmed(sqlite_url) as log:
            yield log, lambda topic, p, before: log.first.update({(topic, p): before})
        return
    shared = request.getfixturevalue("kafka_broker")
    with type(shared)() as broker, KafkaLog(broker.url) as log:  # the topics' names are fixed
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        yield log, lambda topic, p, at: admin.delete_records({TopicPartition(topic, p): at})
        admin.close()


def planner(log: EventLog, folder: Path, **settings: Any) -> Planner:
    config = TrainingConfig(**{"window_records": 40, "max_window_records": 40, **settings})
    return Planner(log, PlanStore(f"{folder}/plans"), config)


def told(plans: Planner, first: int = 0) -> list[Window]:
    windows: list[Window] = []
    while (window := plans.decide(first + len(windows))) is not None:
        windows.append(window)
    return windows


def questions(row: dict[str, Any]) -> list[Any]:
    tokens = list(zip(row["token_item"], row["token_type"], row["token_ts"], strict=True))
    targets = zip(row["target_query"], row["target_item"], row["target_type"], strict=True)
    shown = ("shown_query", "shown_item", "shown_position", "shown_labels", "shown_propensity")
    asked = [*targets, *zip(*(row[name] for name in shown), strict=True)]
    return [
        (tokens[: row["query_context"][query]], row["query_ts"][query], rest)
        for query, *rest in asked
    ]


def learned(log: EventLog, windows: list[Window]) -> tuple[list[Any], list[Any]]:
    """Apply windows; return each user's history, and every question with what it sees and wants.

    Which questions share a row is the windows' business, so they are taken out of their rows.
    """
    state, examples = FeatureState(FEATURES), []
    closing = Window(len(windows), {}, advance_to_ms=START_MS * 2)
    for window in (*windows, closing):
        decoded = read_decoded(log.url, window.ranges)
        made = state.apply(window, {topic: part.table for topic, part in decoded.items()})
        for row in made.examples.to_pylist():
            examples += questions(row)
    histories = state.snapshot()["histories"].to_pylist()
    return sorted(map(str, histories)), sorted(map(str, examples))


def test_partitions_added_to_a_running_stream_change_nothing_that_is_learned(
    log_and_delete: tuple[EventLog, Delete], tmp_path: Path
) -> None:
    log, _ = log_and_delete
    with SqliteLog(f"sqlite:///{tmp_path}/still.db") as still:
        create_standard_topics(still, partitions=2)
        fill_items(still)
        for first, visits in ((0, 80), (80, 1), (81, 79)):
            fill_visits(still, visits, first)
        expected = learned(still, told(planner(still, tmp_path / "still")))

    create_standard_topics(log, partitions=2)
    fill_items(log)
    fill_visits(log, 80)
    plans = planner(log, tmp_path)
    before = told(plans)
    log.add_partitions(EVENTS, 5)
    fill_visits(log, 1, first=80)
    assert plans.decide(len(before)) is None
    assert "'events': 5" in plans.held
    log.add_partitions(EXPOSURES, 5)
    log.add_partitions(CONTROLS, 5)
    fill_visits(log, 79, first=81)
    after = told(plans, len(before))
    assert plans.held == ""
    moved = [p for p in range(2, 5) if log.latest(EVENTS)[p]]
    assert moved
    for partition in moved:
        spans = [window.ranges[EVENTS][partition] for window in after]
        assert spans[0][0] == 0
        assert spans[-1][1] == log.latest(EVENTS)[partition]
    histories, examples = learned(log, [*before, *after])
    assert len(examples) > 600
    assert histories == expected[0]
    assert examples == expected[1]


def test_records_deleted_before_they_were_planned(
    log_and_delete: tuple[EventLog, Delete], tmp_path: Path
) -> None:
    log, delete = log_and_delete
    create_standard_topics(log, partitions=2)
    fill_visits(log, 20)
    plans = planner(log, tmp_path)
    planned = plans.decide(0)
    assert planned is not None
    ends = planned.ends()[EVENTS]
    fill_visits(log, 20, first=20)
    delete(EVENTS, 0, ends[0] - 1)
    last = plans.decide(1)
    assert last is not None, "what was planned already may go"
    fill_visits(log, 20, first=40)
    reached = {p: end for p, (_, end) in log.extent([EVENTS])[EVENTS].items()}
    start = last.ends()[EVENTS]
    delete(EVENTS, 0, start[0] + 3)
    delete(EVENTS, 1, reached[1])

    with pytest.raises(OffsetGap, match=r"events/0: offsets \[.*--on-gap skip"):
        planner(log, tmp_path).decide(2)
    skipping = planner(log, tmp_path, on_gap="skip", publish_interval_s=1e9)
    window = skipping.decide(2)
    assert window is not None
    assert window.lost == {EVENTS: {0: 3, 1: reached[1] - start[1]}}
    assert window.ranges[EVENTS] == {0: (start[0] + 3, reached[0]), 1: (reached[1], reached[1])}
    assert skipping.measures()["lost"] == 3 + reached[1] - start[1]
    assert planner(log, tmp_path).decide(2) == window
    assert skipping.decide(3) is None


def test_records_deleted_after_they_were_planned(
    log_and_delete: tuple[EventLog, Delete], tmp_path: Path
) -> None:
    log, delete = log_and_delete
    create_standard_topics(log, partitions=2)
    fill_visits(log, 20)
    window = planner(log, tmp_path).decide(0)
    assert window is not None
    assert planner(log, tmp_path).mend(0) == window
    delete(EXPOSURES, 1, 4)
    with pytest.raises(OffsetGap, match=r"exposures/1: offsets \[0, 4\)"):
        list(log.read_topics(window.ranges))
    with pytest.raises(OffsetGap, match=r"exposures/1: offsets \[0, 4\).*--on-gap skip"):
        planner(log, tmp_path).mend(0)
    skipping = planner(log, tmp_path, on_gap="skip")
    amended = skipping.mend(0)
    assert amended is not None
    assert amended.lost == {EXPOSURES: {1: 4}}
    assert amended.ends() == window.ends()
    assert sum(t.num_rows for _, t in log.read_topics(amended.ranges)) == window.num_records - 4
    assert planner(log, tmp_path).decide(0) == amended
    assert skipping.measures()["lost"] == 4
