"""What is kept on disks and object stores that fail, tear files and break off: whole or absent.

Each write is interrupted at its first file, tried again and interrupted at its second, and so on
until it gets through: by an error, after which its process goes on, or by the end of its process.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
import torch

from ray_rec.errors import RegistryError, VersionMissing
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.registry import Current, Draft, Registry, store
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint
from ray_rec.training.config import TrainingConfig
from ray_rec.training.planner import LEARNED_TOPICS, Planner
from ray_rec.training.plans import PlanStore
from tests.hostile import Crash, HostileObjects, HostileWrites, TornDisk
from tests.training.test_planner import fill

DRAFT = Draft(
    parent=None,
    windows=(0, 0),
    offsets={EVENTS: {0: 10}},
    config={"model": {"dim": 3}},
    encoder="abc",
)
ROWS = ["apple", "pear"]
STATE = {"offsets": pa.table({"offset": [4]}), "users": pa.table({"user": ["u1", "u2"]})}


@dataclass(frozen=True)
class Place:
    """Where things are kept, how to spoil it, and what interrupts a write there."""

    url: str
    writes: HostileWrites
    crash: bool

    def interruptions(self, write: Callable[[], object]) -> Iterator[int]:
        """Yield after each interruption of `write`, until it gets through."""
        for after in count():
            self.writes.fail(after, Crash() if self.crash else OSError(28, "No space left"))
            try:
                write()
            except (Crash, RegistryError):
                self.writes.mend()
                yield after
            else:
                self.writes.mend()
                return


@pytest.fixture(params=["error", "crash"])
def crash(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "crash")


@pytest.fixture(params=["disk", "objects", "objects, answers lost"])
def place(
    request: pytest.FixtureRequest, crash: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    if request.param == "disk":
        disk = TornDisk(store._write_synced)
        monkeypatch.setattr(store, "_write_synced", disk.write_synced)
        return Place(str(tmp_path / "place"), disk, crash)
    fsspec.register_implementation("hostile", HostileObjects, clobber=True)
    monkeypatch.setattr(HostileObjects, "writes", HostileWrites())
    monkeypatch.setattr(HostileObjects, "late", request.param != "objects")
    return Place(f"hostile://{uuid.uuid4().hex}", HostileObjects.writes, crash)


def tensors(number: int) -> dict[str, torch.Tensor]:
    return {"model.w": torch.full((2, 3), float(number)), "items.count": torch.tensor([4, 5])}


def weight(registry: Registry, version: int) -> float:
    return float(registry.load(version).tensors["model.w"].mean())


def test_an_interrupted_version_is_whole_or_invisible(place: Place) -> None:
    Registry(place.url, create=True).publish(1, tensors(1), ROWS, DRAFT)

    def publish() -> None:
        Registry(place.url).publish(2, tensors(2), ROWS, DRAFT)

    seen = []
    for _ in place.interruptions(publish):
        reader = Registry(place.url)
        seen.append(reader.versions())
        assert [weight(reader, version) for version in seen[-1]] == seen[-1]
        current = reader.current()
        assert current is not None
        assert current.version in seen[-1]
        if seen[-1] == [1]:
            with pytest.raises(VersionMissing):
                reader.load(2)
    assert seen[0] == [1]
    assert len(seen) >= 3
    reader = Registry(place.url)
    assert reader.current() == Current(2, held=False)
    assert weight(reader, 2) == 2.0


def test_a_version_that_was_not_brought_into_service_is_so_when_made_again(place: Place) -> None:
    registry = Registry(place.url, create=True)
    registry.publish(1, tensors(1), ROWS, DRAFT)
    registry.publish(2, tensors(2), ROWS, DRAFT, promote=False)
    for _ in place.interruptions(registry.release):
        assert registry.current() == Current(1, held=False)
    assert registry.versions() == [1, 2]


def test_an_interrupted_snapshot_leaves_the_one_before(place: Place) -> None:
    Registry(place.url, create=True).publish_snapshot(3, STATE, DRAFT.offsets)
    seen = []

    def publish() -> None:
        Registry(place.url).publish_snapshot(7, STATE, DRAFT.offsets)

    for _ in place.interruptions(publish):
        latest = Registry(place.url).latest_snapshot()
        assert latest is not None
        assert latest.segments == [STATE]
        seen.append(latest.number)
    assert seen[:2] == [3, 3]
    latest = Registry(place.url).latest_snapshot()
    assert latest is not None
    assert (latest.number, latest.segments) == (7, [STATE])


def test_an_interrupted_checkpoint_leaves_the_one_before(place: Place) -> None:
    def made(number: int) -> TrainerCheckpoint:
        return TrainerCheckpoint(number, {"w": torch.full((4,), float(number))}, ["a"], None, None)

    Checkpoints(place.url, keep=2).write(made(3))
    seen = []
    for _ in place.interruptions(lambda: Checkpoints(place.url, keep=2).write(made(7))):
        newest = Checkpoints(place.url, keep=2).newest()
        assert newest is not None
        assert newest.learner["w"].tolist() == [float(newest.number)] * 4
        seen.append(newest.number)
    assert seen[:2] == [3, 3]
    checkpoints = Checkpoints(place.url, keep=2)
    assert checkpoints.numbers() == [3, 7]
    assert checkpoints.read(7).learner["w"].tolist() == [7.0] * 4


def test_an_interrupted_plan_leaves_no_gap(place: Place, sqlite_url: str) -> None:
    with open_log(sqlite_url) as log:
        create_standard_topics(log, partitions=2)
        fill(log, EVENTS, 300)
        end = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
        config = TrainingConfig(window_records=50)
        planners = [Planner(log, PlanStore(place.url), config, end)]
        told: list[Window | None] = []
        while None not in told:
            for _ in place.interruptions(lambda: told.append(planners[-1].decide(len(told)))):
                if place.crash:
                    planners.append(Planner(log, PlanStore(place.url), config, end))
    windows = [window for window in told if window is not None]
    at = {topic: dict.fromkeys(offsets, 0) for topic, offsets in end.items()}
    for window in windows:
        for topic, spans in window.ranges.items():
            assert {p: start for p, (start, _) in spans.items()} == at[topic], window.number
        at = window.ends()
    assert at == end
    kept = PlanStore(place.url)
    assert [kept.get(number) for number in kept.numbers()] == windows


def test_readers_beside_a_slow_writer_see_whole_versions(place: Place) -> None:
    registry, stop = Registry(place.url, create=True), threading.Event()
    registry.publish(1, tensors(1), ROWS, DRAFT)
    place.writes.slow_s = 0.002

    def publish() -> None:
        for number in range(2, 12):
            registry.publish(number, tensors(number), ROWS, DRAFT)
        stop.set()

    writer = threading.Thread(target=publish)
    writer.start()
    reader, seen = Registry(place.url), set()
    while not stop.is_set():
        current = reader.current()
        assert current is not None
        assert weight(reader, current.version) == current.version
        seen.add(current.version)
    writer.join()
    assert len(seen) > 1
