"""A stream that meets deleted records on a real broker: it ends in order, or goes on and counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import OffsetGap
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import create_standard_topics
from ray_rec.log.kafka import KafkaLog
from ray_rec.registry import Registry
from ray_rec.training.planner import Planner
from ray_rec.training.plans import PlanStore
from ray_rec.training.stream import run_stream
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits

pytestmark = [pytest.mark.ray, pytest.mark.kafka, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def broker(kafka_broker: Any) -> Iterator[Any]:
    with type(kafka_broker)() as own:
        yield own


def config_of(url: str, folder: Path, *changes: str) -> RunConfig:
    places = (f"log={url}", f"registry={folder}/registry", f"state_dir={folder}/state")
    return load_config(None, (*SMALL, *places, *changes), environ={})


def test_a_gap_ends_the_run_in_order_and_is_passed_over_when_told(
    broker: Any, tmp_path: Path
) -> None:
    config = config_of(broker.url, tmp_path)
    skipping = config_of(broker.url, tmp_path, "training.on_gap=skip")
    plans, registry = PlanStore(f"{config.state_dir}/plans"), Registry(config.registry, create=True)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    with KafkaLog(broker.url) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        fill_visits(log, 50)
        first = run_stream(config, bounded=True)
        assert first.version is not None
        reached = log.latest(EVENTS)

        fill_visits(log, 50, first=50)
        admin.delete_records({TopicPartition(EVENTS, 0): reached[0] + 2})
        with pytest.raises(OffsetGap, match=rf"events/0: offsets \[{reached[0]}, .*--on-gap skip"):
            run_stream(config, bounded=True)
        assert registry.versions()[-1] == first.version
        told: list[dict[str, Any]] = []
        second = run_stream(skipping, bounded=True, on_metrics=told.append)
        assert second.records == 98
        assert told[-1]["lost"] == 2
        assert registry.manifest(second.version or 0).offsets[EVENTS] == log.latest(EVENTS)

        fill_visits(log, 50, first=100)
        number = second.version or 0  # as a run that was killed leaves it: decided, not learned
        ends = {topic: log.latest(topic) for topic in log.topics() if topic != "dead-letter"}
        window = Planner(log, plans, config.training, end=ends).decide(number)
        assert window is not None
        start = window.ranges[EVENTS][1][0]
        admin.delete_records({TopicPartition(EVENTS, 1): start + 3})
        with pytest.raises(OffsetGap, match=rf"events/1: offsets \[{start}, {start + 3}\)"):
            run_stream(config, bounded=True)
        assert PlanStore(plans.url).get(number) == window
        third = run_stream(skipping, bounded=True, on_metrics=told.append)
        assert third.version == number + 1
        amended = PlanStore(plans.url).get(number)
        assert amended is not None
        assert amended.lost == {EVENTS: {1: 3}}
        assert told[-1]["lost"] == 3
        assert registry.manifest(third.version).offsets[EVENTS] == log.latest(EVENTS)
    admin.close()
