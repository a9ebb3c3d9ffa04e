"""The planner as workers meet it: it waits, is stopped, warns, prunes, and ends a run in order."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError
from ray_rec.events.schema import EVENTS, Record
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.registry import Draft, Gate, Registry
from ray_rec.training.actors import PlannerActor
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.plans import PlanStore

PATIENCE_S = 60.0


def config_of(tmp_path: Path, url: str, *changes: str) -> RunConfig:
    places = (f"log={url}", f"state_dir={tmp_path}/state", f"registry={tmp_path}/registry")
    return load_config(None, (*places, *changes), environ={})


def fill(log: EventLog, count: int) -> None:
    log.append(EVENTS, [Record(f"u{i}".encode(), b"{}", 1_000 + i) for i in range(count)])


@pytest.fixture
def log(sqlite_url: str) -> EventLog:
    log = open_log(sqlite_url)
    create_standard_topics(log, partitions=2)
    return log


async def soon(waiting: Any) -> Any:
    return await asyncio.wait_for(waiting, PATIENCE_S)


def test_a_worker_waits_for_records_and_a_stop_closes_with_a_full_version(
    log: EventLog, tmp_path: Path
) -> None:
    async def run() -> None:
        actor = PlannerActor(config_of(tmp_path, log.url), None, None)
        waiting = asyncio.create_task(actor.plan(0))
        assert await actor.ahead(0) is None
        fill(log, 10)
        first, again = await soon(waiting), await soon(actor.plan(0))
        assert first == again
        assert first.num_records == 10
        await actor.record({"window": 0})
        assert await actor.drain_metrics() == [
            {"window": 0, "waiting": 0, "lost": 0, "held_s": 0.0}
        ]
        assert await actor.drain_metrics() == []
        last = asyncio.create_task(actor.plan(1))
        await actor.stop()
        assert await soon(last) is None, "the first version is full, and holds everything"
        assert await actor.failure() is None

    asyncio.run(run())


def test_topics_that_are_being_enlarged_are_warned_of_once(log: EventLog, tmp_path: Path) -> None:
    async def run() -> None:
        actor = PlannerActor(config_of(tmp_path, log.url), None, None)
        log.add_partitions(EVENTS, 3)
        fill(log, 10)
        waiting = asyncio.create_task(actor.plan(0))
        warnings: list[str] = []
        while not warnings:
            warnings = await actor.drain_warnings()
            await asyncio.sleep(0)
        assert "waiting to plan window 0" in warnings[0]
        assert "'events': 3" in warnings[0]
        log.add_partitions("exposures", 3)
        log.add_partitions("controls", 3)
        assert (await soon(waiting)).num_records == 10
        assert await actor.drain_warnings() == []

    asyncio.run(run())


@pytest.mark.kafka
def test_a_broker_that_is_away_for_a_while_is_waited_for(kafka_broker: Any, tmp_path: Path) -> None:
    async def run() -> None:
        with type(kafka_broker)() as broker, open_log(broker.url) as log:
            create_standard_topics(log, partitions=2)
            ends = {topic: log.latest(topic) for topic in ("items", EVENTS, "exposures")}
            fill(log, 10)
            ends[EVENTS] = log.latest(EVENTS)
            actor = PlannerActor(config_of(tmp_path, broker.url), ends, None)
            broker.kill()
            waiting = asyncio.create_task(actor.plan(0))
            warnings: list[str] = []
            while not warnings:
                warnings = await actor.drain_warnings()
                await asyncio.sleep(0.01)
            assert "is a broker running there?" in warnings[0]
            broker.restart()
            assert (await soon(waiting)).num_records == 10
            assert await soon(actor.plan(1)) is None

    asyncio.run(run())


def test_a_failure_ends_the_run_in_order(log: EventLog, tmp_path: Path) -> None:
    fill(log, 10)
    other = PlanStore(f"{tmp_path}/other")
    other.put(Window(0, {EVENTS: {0: (0, 1)}}))
    own = PlanStore(f"{tmp_path}/state/plans")
    own.put(Window(0, {EVENTS: {0: (0, 2)}}))

    async def run() -> None:
        actor = PlannerActor(config_of(tmp_path, log.url), None, other.url)
        assert await soon(actor.plan(0)) is None
        assert isinstance(await actor.failure(), ConfigError)
        assert await actor.ahead(0) is None

    asyncio.run(run())


def publish(config: RunConfig, version: int, passed: bool) -> None:
    """Publish what the gate let pass, or refused, after `version` windows."""
    gate = Gate(passed, "judged")
    draft = Draft(None, (version - 1, version - 1), {}, {}, "encoder", gate=gate)
    Registry(config.registry, create=True).publish(version, {"w": torch.ones(1)}, [], draft)


def test_a_bounded_run_ends_once_its_newest_versions_were_all_refused(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, 500)
    config = config_of(tmp_path, log.url, "training.window_records=50", "training.patience=2")
    end = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
    for version, passed in {1: True, 2: False, 3: False}.items():
        publish(config, version, passed)  # by a run before, which ended so
    start = {topic: {0: (0, 0), 1: (0, 0)} for topic in LEARNED_TOPICS}
    PlanStore(f"{tmp_path}/state/plans").put(Window(2, start, publish="full"))

    async def run() -> None:
        actor = PlannerActor(config, end, None)
        learned = [await soon(actor.plan(number)) for number in (3, 4)]
        publish(config, 4, False)
        learned.append(await actor.ahead(5))
        publish(config, 5, False)
        assert await actor.ahead(6) is None
        assert await soon(actor.plan(5)) == learned[-1], "what was decided is told"
        assert all(0 < window.num_records < 100 for window in learned)
        last = await soon(actor.plan(6))
        assert last.num_records == 0
        assert last.publish == "full"
        assert await soon(actor.plan(7)) is None

    asyncio.run(run())


@pytest.mark.parametrize("how", ["stream", "repetition", "one better", "no patience"])
def test_no_other_run_ends_early(log: EventLog, tmp_path: Path, how: str) -> None:
    fill(log, 200)
    most = 0 if how == "no patience" else 2
    config = config_of(tmp_path, log.url, "training.window_records=50", f"training.patience={most}")
    end = None if how == "stream" else {topic: log.latest(topic) for topic in LEARNED_TOPICS}
    given = PlanStore(f"{tmp_path}/given")
    for number in range(4):
        given.put(Window(number, {EVENTS: {0: (number, number + 1)}}))

    async def run() -> None:
        actor = PlannerActor(config, end, given.url if how == "repetition" else None)
        await soon(actor.plan(0))
        for version in (1, 2):
            publish(config, version, passed=how == "one better" and version == 1)
        for number in (1, 2):
            assert (await soon(actor.plan(number))).num_records > 0

    asyncio.run(run())


def test_patience_stands_on_versions_that_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"patience is 5; it must be below .*keep_versions \(5\)"):
        config_of(tmp_path, "sqlite:///x", "training.patience=5", "training.keep_versions=5")


def test_plans_that_nothing_needs_are_pruned_where_that_is_configured(
    log: EventLog, tmp_path: Path
) -> None:
    fill(log, 10)
    numbers = [0, 999, 1500, 2500, 2999]
    ends = {topic: {0: (0, 0), 1: (0, 0)} for topic in ("items", EVENTS, "exposures", "controls")}

    def left(*changes: str) -> list[int]:
        plans = PlanStore(f"{tmp_path}/state/plans")
        for number in numbers:
            plans.put(Window(number, ends, publish="full"))
        actor = PlannerActor(config_of(tmp_path, log.url, *changes), None, None)
        assert asyncio.run(soon(actor.plan(3000))) is not None
        return list(plans.numbers())

    keep = ("training.keep_plans=500", "training.replay_horizon=100")
    assert left(*keep) == [*numbers, 3000], "without a checkpoint all are needed"
    checkpoints = Checkpoints(f"{tmp_path}/state/checkpoints", keep=2)
    checkpoints.write(TrainerCheckpoint(2050, {}, (), None, None))
    assert left() == [*numbers, 3000]
    assert left(*keep) == [1500, 2500, 2999, 3000], "from 1950 on for replays"
    checkpoints.write(TrainerCheckpoint(2900, {}, (), None, None))
    checkpoints.write(TrainerCheckpoint(2950, {}, (), None, None))
    assert left(*keep) == [2500, 2999, 3000]
