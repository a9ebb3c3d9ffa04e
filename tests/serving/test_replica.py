"""A replica over a real log and registry: catching up, following, swapping, surviving trouble."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ray_rec.errors import LogError, LogUnavailable, OffsetGap
from ray_rec.events import EVENTS, EXPOSURES, Event, Item, Record
from ray_rec.log import Offsets
from ray_rec.log.sqlite import SqliteLog
from ray_rec.registry import Registry, Version
from ray_rec.serving.answers import Request
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.engine import Engine
from ray_rec.serving.replica import Replica
from tests.serving import builders, shop

WORDS = builders.Words()


def words(texts: Sequence[str], digest: str) -> npt.NDArray[np.float32]:
    assert digest == "words"
    return WORDS.encode(texts)


class TroubledLog(SqliteLog):
    """Raises `trouble` from each look at its end while that is set."""

    trouble: LogError | None = None

    def latest(self, topic: str) -> Offsets:
        if self.trouble is not None:
            raise self.trouble
        return super().latest(topic)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TroubledLog]:
    with TroubledLog(f"sqlite:///{tmp_path}/log.db") as log:
        shop.fill(log)
        yield log


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"), create=True)


@pytest.fixture
def start(log: TroubledLog, registry: Registry) -> Iterator[Callable[..., Replica]]:
    started: list[Replica] = []

    def start(encode: object = words, wait_s: float = 20.0) -> Replica:
        config = ServingConfig(registry_poll_s=0.05)
        replica = Replica(log, registry, builders.FEATURES, config, encode)
        started.append(replica)
        return replica.start(wait_s)

    yield start
    for replica in started:
        replica.close()


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {within_s} s"
        time.sleep(0.01)


def ask(replica: Replica, user_id: str = "u1") -> list[str]:
    answer = replica.recommend(Request(user_id=user_id, request_id=str(time.time_ns()), num=100))
    return [item.item_id for item in answer.items]


def event(user_id: str, item_id: str) -> list[Record]:
    ts = int(time.time() * 1000)
    struct = Event(event_id=f"{ts}", user_id=user_id, item_id=item_id, event_type="purchase", ts=ts)
    return shop.records(EVENTS, [struct])


def test_from_a_snapshot_and_from_the_whole_log_it_answers_alike(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica], tmp_path: Path
) -> None:
    version = builders.publish(log, registry, 1, WORDS)
    log.append(EVENTS, event("u1", "paper-2"))  # after the snapshot
    warm = start()
    assert warm.readiness().ready
    assert warm.readiness().snapshot == 1
    other = Registry(str(tmp_path / "other"), create=True)
    cold = Replica(log, other, builders.FEATURES, warm.serving, words).start()
    eventually(lambda: cold.readiness().caught_up)
    assert cold.readiness().reason == "no model version is loaded yet"
    cold.engine.swap(version)
    assert cold.readiness().snapshot is None
    question = Request(user_id="u1", request_id="r", num=48, ts=int(time.time() * 1000))
    one, two = warm.recommend(question), cold.recommend(question)
    assert [i.item_id for i in one.items] == [i.item_id for i in two.items]
    cold.close()


def test_what_it_accepts_it_knows(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    replica = start()
    assert replica.append(EVENTS, event("somebody", "tea-4"))
    (past,) = replica.engine.profiles.history("somebody", 5)
    assert past.item_id == "tea-4"


def test_exposures_are_on_the_log_after_close(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    replica = start()
    for number in range(30):
        ask(replica, f"u{number}")
    replica.close()
    assert sum(log.latest(EXPOSURES).values()) == 30


def test_versions_are_followed_and_a_corrupt_one_is_not_taken(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica], tmp_path: Path
) -> None:
    replica = start(wait_s=0.0)
    builders.publish(log, registry, 1, WORDS)
    eventually(lambda: replica.engine.version == 1)
    builders.publish(log, registry, 2, WORDS)
    eventually(lambda: replica.engine.version == 2)
    file = tmp_path / "registry/versions/00000001/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    registry.rollback()
    eventually(lambda: 'ray_rec_follower_errors_total{source="registry"}' in replica.metrics_text())
    assert replica.engine.version == 2
    assert len(ask(replica)) == 48
    registry.release()
    builders.publish(log, registry, 3, WORDS)
    eventually(lambda: replica.engine.version == 3)


def answers_alike(replica: Replica, version: Version) -> bool:
    """Whether it answers as an engine of the same state that took the version whole."""
    engine = Engine(builders.FEATURES, replica.serving, replica.engine.state)
    engine.swap(version)
    question = Request(user_id="u1", request_id="r", num=100, ts=int(time.time() * 1000))
    mine, theirs = replica.recommend(question), engine.recommend(question)
    scores = [i.score for i in mine.items], [i.score for i in theirs.items]
    return (
        [i.item_id for i in mine.items] == [i.item_id for i in theirs.items]
        and scores[0] == pytest.approx(scores[1], abs=1e-4)
        and mine.model_version == version.manifest.version
    )


def test_deltas_are_followed_one_by_one_and_after_ten_were_missed(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica], tmp_path: Path
) -> None:
    version = builders.publish(log, registry, 1, WORDS)
    replica = start()
    version = builders.publish_delta(registry, 2, version)
    eventually(lambda: replica.engine.version == 2)
    assert answers_alike(replica, version)

    held = registry.rollback(2)
    for number in range(3, 13):
        new = [f"new-{number}"] if number % 5 == 0 else []
        version = builders.publish_delta(registry, number, version, *new)
    assert registry.current() == held
    (tmp_path / "registry/versions/00000001/model.safetensors").unlink()  # it is not read again
    registry.release()
    eventually(lambda: replica.engine.version == 12)
    assert answers_alike(replica, version)
    assert version.rows[48:] == ["new-5", "new-10"]


def test_a_rollback_to_a_delta_is_answered_with_it(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    versions = [builders.publish(log, registry, 1, WORDS)]
    for number in (2, 3, 4):
        versions.append(builders.publish_delta(registry, number, versions[-1]))
    replica = start()
    assert replica.engine.version == 4
    registry.rollback(2)
    eventually(lambda: replica.engine.version == 2)
    assert answers_alike(replica, versions[1])
    registry.release()
    eventually(lambda: replica.engine.version == 4)
    assert answers_alike(replica, versions[3])


def test_a_delta_brings_a_new_item_that_waited_for_its_text(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    version = builders.publish(log, registry, 1, WORDS)
    replica = start(encode=None)
    item = Item(item_id="new", title="brand new", ts=1)
    assert replica.append("items", shop.records("items", [item]))
    assert "new" not in ask(replica)
    version = builders.publish_delta(registry, 2, version, "new")
    eventually(lambda: replica.engine.version == 2)
    assert "new" in ask(replica)
    assert replica.engine.num_without_vector == 0
    assert answers_alike(replica, version)


def test_a_broken_chain_leaves_the_version_in_service(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica], tmp_path: Path
) -> None:
    version = builders.publish(log, registry, 1, WORDS)
    replica = start()
    held = registry.rollback(1)
    for number in (2, 3):
        version = builders.publish_delta(registry, number, version)
    assert registry.current() == held
    file = tmp_path / "registry/versions/00000002/model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    registry.release()
    eventually(lambda: 'ray_rec_follower_errors_total{source="registry"}' in replica.metrics_text())
    assert replica.engine.version == 1
    assert len(ask(replica)) == 48
    file.write_bytes(whole)
    eventually(lambda: replica.engine.version == 3)
    assert answers_alike(replica, version)


def test_a_log_that_comes_back_is_followed_on(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    replica = start()
    log.trouble = LogUnavailable("the disk is away")
    eventually(lambda: 'source="log"' in replica.metrics_text())
    assert len(ask(replica)) == 48
    log.trouble = None
    assert replica.append(EVENTS, event("later", "tea-4"))
    assert replica.readiness().ready


def test_a_gap_in_the_log_asks_for_another_replica(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    replica = start()
    replica.check_health()
    log.trouble = OffsetGap("events/0: offsets [3, 9) were deleted by retention")
    eventually(lambda: not replica.readiness().ready)
    assert "deleted by retention" in replica.readiness().reason
    with pytest.raises(LogError, match="deleted by retention"):
        replica.check_health()


def test_texts_wait_for_an_encoder_that_fails(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    calls = []

    def flaky(texts: Sequence[str], digest: str) -> npt.NDArray[np.float32]:
        calls.append(texts)
        if len(calls) == 1:
            raise RuntimeError("the encoder is being replaced")
        return WORDS.encode(texts)

    replica = start(encode=flaky)
    (item,) = (item for item in shop.items() if item.item_id == "tea-1")
    new = type(item)(item_id="new", title="brand new", ts=1)
    assert replica.append("items", shop.records("items", [new]))
    eventually(lambda: "new" in ask(replica))
    assert len(calls) == 2
    assert 'ray_rec_follower_errors_total{source="encoder"} 1.0' in replica.metrics_text()
    assert "ray_rec_items_without_vector 0.0" in replica.metrics_text()


def test_an_encoder_change_is_taken_whole(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    """Items that neither version learned are encoded for the new one before it answers."""
    builders.publish(log, registry, 1, WORDS)
    other = builders.Words(32, "other")
    there, asked = threading.Event(), list[tuple[str, int]]()

    def encode(texts: Sequence[str], digest: str) -> npt.NDArray[np.float32]:
        asked.append((digest, len(texts)))
        if digest == "words":
            return WORDS.encode(texts)
        if not there.is_set():
            raise RuntimeError("it is nowhere")
        return other.encode(texts)

    replica = start(encode)
    item = Item(item_id="new", title="brand new", ts=1)
    version, state = builders.version_of(log, 2, other)  # has not learned it
    assert replica.append("items", shop.records("items", [item]))
    eventually(lambda: "new" in ask(replica))
    builders.put(registry, version, state)
    eventually(lambda: 'ray_rec_follower_errors_total{source="registry"}' in replica.metrics_text())
    assert replica.engine.version == 1
    there.set()
    while replica.engine.version == 1:
        assert "new" in ask(replica)
    assert "new" in ask(replica)
    assert replica.engine.num_without_vector == 0
    assert {(digest, num) for digest, num in asked} == {("words", 1), ("other", 1)}
    later = Item(item_id="later", title="brand new too", ts=1)
    assert replica.append("items", shop.records("items", [later]))
    eventually(lambda: "later" in ask(replica))
    assert asked[-1][0] == "other"


def test_a_dead_letter_is_counted_and_passed_over(
    log: TroubledLog, registry: Registry, start: Callable[..., Replica]
) -> None:
    builders.publish(log, registry, 1, WORDS)
    replica = start()
    log.append(EVENTS, [Record(b"u1", b"no json", 5)])
    assert replica.append(EVENTS, event("u1", "tea-1"))
    metric = 'ray_rec_dead_letters_total{reason="not_json",topic="events"} 1.0'
    eventually(lambda: metric in replica.metrics_text())
