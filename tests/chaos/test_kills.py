"""Each kind of kill once per log; `make chaos` makes a hundred."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kills import BROKER, KINDS, USERS, schedule
from tests.chaos.outcome import check_close
from tests.chaos.shop import configure, fill
from tests.chaos.stage import Stage
from tests.chaos.trial import trial
from tests.features.builders import check_same_state

pytestmark = pytest.mark.ray

WINDOWS = 20
BEFORE = 16
"""Kills come before this version; there are a few more."""


@pytest.fixture
def own_broker(kafka_broker: Any) -> Iterator[Any]:
    """A broker whose standard topics nobody else uses, and that may be killed."""
    with type(kafka_broker)() as broker:
        yield broker


def test_each_kind_of_kill_on_sqlite_with_one_worker_and_two(
    sqlite_url: str, tmp_path: Path
) -> None:
    fill(sqlite_url, WINDOWS)
    exact = ("learner.dtype=float64", "model.dropout=0")
    one = configure(sqlite_url, tmp_path / "run", *exact)
    company = ("training.num_workers=2", "training.cpus_per_worker=0.4")
    two = configure(sqlite_url, tmp_path / "run", *exact, *company)
    kills = schedule(random.Random(1), KINDS, BEFORE)
    more = schedule(random.Random(2), ("worker", "owner"), BEFORE)
    with Stage(one) as stage:
        calm, made = trial(stage, kills)
        assert made == kills
        disturbed, made = stage.repeat(two, more)
        assert made == more
        check_close(disturbed, calm, tolerance=1e-12)


def test_an_owner_of_users_dies_alone_and_with_the_owner_of_the_state(
    sqlite_url: str, tmp_path: Path
) -> None:
    fill(sqlite_url, WINDOWS)
    config = configure(sqlite_url, tmp_path / "run", "training.state_owners=3")
    kills = schedule(random.Random(4), (USERS, USERS, "owner", "worker"), BEFORE)
    with Stage(config) as stage:
        calm, made = trial(stage, kills)
        assert made == kills
        alone, _ = stage.repeat(configure(sqlite_url, tmp_path / "run"))
        assert (alone.plans, alone.facts) == (calm.plans, calm.facts)
        check_same_state(alone.state, calm.state)


@pytest.mark.kafka
def test_each_kind_of_kill_on_kafka(own_broker: Any, tmp_path: Path) -> None:
    fill(own_broker.url, WINDOWS)
    config = configure(own_broker.url, tmp_path / "run", "training.replay_windows=1")
    kills = schedule(random.Random(3), (*KINDS, BROKER), BEFORE)
    with Stage(config, own_broker) as stage:
        _, made = trial(stage, kills)
    assert made == kills
