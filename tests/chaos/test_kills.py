"""Each kind of kill once per log; `make chaos` makes a hundred."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.kills import BROKER, KINDS, schedule
from tests.chaos.ledger import check_books
from tests.chaos.outcome import check_close, check_consumed
from tests.chaos.shop import configure, fill
from tests.chaos.stage import Stage
from tests.chaos.trial import trial

pytestmark = pytest.mark.ray

WINDOWS = 20
BEFORE = 16
"""Kills come before this version; there are a few more."""


@pytest.fixture
def own_broker(kafka_broker: Any) -> Iterator[Any]:
    """A broker whose standard topics nobody else uses, and that may be killed."""
    with type(kafka_broker)() as broker:
        yield broker


def test_each_kind_of_kill_on_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    kills = schedule(random.Random(1), KINDS, BEFORE)
    assert trial(sqlite_url, tmp_path, WINDOWS, kills) == kills


@pytest.mark.kafka
def test_each_kind_of_kill_on_kafka(own_broker: Any, tmp_path: Path) -> None:
    kills = schedule(random.Random(2), (*KINDS, BROKER), BEFORE)
    assert trial(own_broker.url, tmp_path, WINDOWS, kills, own_broker) == kills


def test_two_workers_through_kills_learn_what_one_learns(sqlite_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, WINDOWS)
    exact = ("learner.dtype=float64", "model.dropout=0", "training.replay_windows=1")
    one = configure(sqlite_url, tmp_path / "run", *exact)
    two = configure(
        sqlite_url,
        tmp_path / "run",
        *exact,
        "training.num_workers=2",
        "training.cpus_per_worker=0.4",
    )
    kills = schedule(random.Random(3), ("worker", "owner"), BEFORE)
    with Stage(two) as stage:
        disturbed, made = stage.run(kills)
        check_consumed(disturbed, sqlite_url)
        check_books(disturbed, two)
        calm = stage.repeat(one)
        check_close(disturbed, calm, tolerance=1e-12)
    assert made == kills
