"""Checkpoints are written beside learning; a store that fails is tried again, then heard."""

import logging
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import RegistryError
from ray_rec.registry import Registry
from ray_rec.training import keeper as module
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint
from ray_rec.training.keeper import PATIENCE, Keeper
from ray_rec.training.owner import Kept
from tests.waiting import until

STATE = Kept({"offsets": pa.table({"offset": [4]})}, None)
CHANGES = {"offsets": pa.table({"offset": [5]})}
OFFSETS = {"events": {0: 4}}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    changes = (
        f"registry={tmp_path}/registry",
        f"state_dir={tmp_path}/state",
        "training.checkpoint_interval_s=0",
    )
    return load_config(None, changes, environ={})


def made(number: int) -> TrainerCheckpoint:
    return TrainerCheckpoint(number, {"w": torch.ones(2)}, ["a"], None, None)


def test_the_snapshot_comes_first_and_the_owner_hears_last(config: RunConfig) -> None:
    seen: list[tuple[int, int, bool]] = []

    def kept(number: int, oldest: int) -> None:
        whole = Registry(config.registry).latest_snapshot() is not None
        seen.append((number, oldest, whole and Checkpoints.of(config).numbers()[-1] == number))

    keeper = Keeper(config, kept)
    for number in (4, 5, 6):
        keeper.keep(made(number), STATE, OFFSETS)
        keeper.flush()
    assert seen == [(4, 4, True), (5, 4, True), (6, 5, True)]


class Hostile(Registry):
    """A registry whose snapshots wait for `go`, and fail while `broken`."""

    go = threading.Event()
    broken = False

    def publish_snapshot(self, *args: object, **kwargs: object) -> None:
        self.go.wait(60)
        if Hostile.broken:
            raise RegistryError("the disk is full")
        super().publish_snapshot(*args, **kwargs)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> type[Hostile]:
    monkeypatch.setattr(module, "Registry", Hostile)
    Hostile.go, Hostile.broken = threading.Event(), False
    return Hostile


def test_learning_does_not_wait_for_a_slow_store(config: RunConfig, hostile: type[Hostile]) -> None:
    keeper = Keeper(config, lambda number, oldest: None)
    assert keeper.due()
    keeper.keep(made(4), STATE, OFFSETS)
    assert not keeper.due()
    assert Checkpoints.of(config).numbers() == []
    hostile.go.set()
    keeper.flush()
    assert Checkpoints.of(config).numbers() == [4]
    assert keeper.due()


def test_a_failing_store_is_tried_again_and_then_raised(
    config: RunConfig, hostile: type[Hostile], caplog: pytest.LogCaptureFixture
) -> None:
    hostile.go.set()
    hostile.broken = True
    keeper = Keeper(config, lambda number, oldest: None)

    def fail() -> None:
        keeper.keep(made(4), STATE, OFFSETS)
        until(keeper.due, 60)

    with caplog.at_level(logging.ERROR):
        for _ in range(PATIENCE):
            fail()
    assert caplog.text.count("the disk is full") == PATIENCE
    with pytest.raises(RegistryError, match="disk is full"):
        fail()


def test_after_a_passing_failure_the_next_checkpoint_is_whole(
    config: RunConfig, hostile: type[Hostile]
) -> None:
    hostile.go.set()
    hostile.broken = True
    told: list[int] = []
    keeper = Keeper(config, lambda number, oldest: told.append(number))
    keeper.keep(made(4), STATE, OFFSETS)
    until(keeper.due, 60)
    hostile.broken = False
    keeper.keep(made(5), STATE, OFFSETS)
    keeper.flush()
    assert told == [5]
    assert Checkpoints.of(config).numbers() == [5]


def test_snapshots_build_on_one_another_until_a_whole_one_is_due(config: RunConfig) -> None:
    """Each delta is as large as the whole state, so every second snapshot is whole again."""
    keeper = Keeper(config, lambda number, oldest: None)
    assert keeper.base is None
    keeper.keep(made(4), STATE, OFFSETS)
    keeper.flush()
    assert keeper.base == 4
    keeper.keep(made(5), Kept(CHANGES, keeper.base), OFFSETS)
    keeper.flush()
    snapshot = Registry(config.registry).snapshot(5)
    assert snapshot is not None
    assert [segment["offsets"]["offset"].to_pylist() for segment in snapshot.segments] == [[4], [5]]
    assert keeper.base is None


def test_nothing_builds_on_a_snapshot_that_failed(
    config: RunConfig, hostile: type[Hostile]
) -> None:
    hostile.go.set()
    keeper = Keeper(config, lambda number, oldest: None)
    keeper.keep(made(4), STATE, OFFSETS)
    until(keeper.due, 60)
    hostile.broken = True
    keeper.keep(made(5), Kept({}, keeper.base), OFFSETS)
    until(keeper.due, 60)
    assert keeper.base is None
