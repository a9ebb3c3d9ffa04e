"""The status of a real log and registry: with a stream, after one, and without any."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import RegistryError, StateError
from ray_rec.events.parse import encode
from ray_rec.events.schema import DEAD_LETTER, EVENTS, DeadLetter, Record
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.registry import Draft, Gate, Registry
from ray_rec.registry.store import Store
from ray_rec.tracking.last import NAME, Last
from ray_rec.training.status import status


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    places = (
        f"log=sqlite:///{tmp_path}/log.db",
        f"registry={tmp_path}/registry",
        f"state_dir={tmp_path}/state",
    )
    return load_config(None, places, environ={})


@pytest.fixture
def log(config: RunConfig) -> Iterator[EventLog]:
    with open_log(config.log) as opened:
        create_standard_topics(opened, partitions=1)
        opened.append(EVENTS, [Record(b"u", b"{}", 1)] * 10)
        yield opened


@pytest.fixture
def registry(config: RunConfig) -> Registry:
    return Registry(config.registry, create=True)


def publish(registry: Registry, version: int, end: int, passed: bool = True) -> None:
    draft = Draft(
        parent=None,
        windows=(0, version - 1),
        offsets={EVENTS: {0: end}},
        config={},
        encoder="e",
        metrics={"recall_loss": 1.5, "auc": 0.75, "learn_s": 0.25, "watermark_ms": 90_000.0},
        gate=Gate(passed, "within the margin" if passed else "worse"),
    )
    registry.publish(version, {"w": torch.full((1,), float(version))}, ["a", "b"], draft)


def test_before_the_first_version(config: RunConfig, log: EventLog, registry: Registry) -> None:
    found = status(config)
    assert found.log.lag == {
        "items": {0: 0},
        "events": {0: 10},
        "exposures": {0: 0},
        "controls": {0: 0},
    }
    assert (found.log.dead_letters, found.log.reasons) == (0, {})
    assert found.stream is None
    assert found.checkpoint is None
    assert (found.model.version, found.model.newest, found.model.quality) == (None, None, {})


def test_without_a_stream_the_newest_version_tells(
    config: RunConfig, log: EventLog, registry: Registry
) -> None:
    publish(registry, 3, end=4)
    publish(registry, 5, end=7, passed=False)
    found = status(config)
    assert found.log.lag[EVENTS] == {0: 3}
    model = found.model
    assert (model.version, model.newest, model.held, model.items) == (3, 5, False, 2)
    assert (model.newest_passed, model.newest_reason) == (False, "worse")
    assert model.age_s is not None
    assert 0 <= model.age_s < 3600
    assert model.quality == {"recall": {"loss": 1.5}, "click": {"auc": 0.75}}
    assert found.stream is not None
    assert found.stream.window == 4
    assert found.stream.stage_s == {"learn": 0.25}
    assert found.stream.watermark_ms == 90_000
    assert found.stream.events_per_second is None


def test_what_a_stream_told_last_stands_above(
    config: RunConfig, log: EventLog, registry: Registry
) -> None:
    publish(registry, 3, end=4)
    metrics = {
        "loss/recall": 1.25,
        "hr_at_10/recall": 0.5,
        "events_per_second": 40.0,
        "examples_per_second": 20.0,
        "window_seconds/read": 0.5,
        "watermark_seconds": time.time() - 60,
        "duplicates/events": 3.0,
        "late/exposures": 2.0,
        "late_outcomes": 1.0,
        "lost": 5.0,
        "set_aside": 6.0,
        "dead_letters/not_json": 9.0,
    }
    Last(config.state_dir).log(8, metrics)
    found = status(config)
    stream = found.stream
    assert stream is not None
    assert (stream.window, stream.events_per_second, stream.examples_per_second) == (8, 40, 20)
    assert 0 <= stream.age_s < 3600
    assert stream.watermark_behind_s is not None
    assert 60 <= stream.watermark_behind_s < 3600
    assert stream.stage_s == {"learn": 0.25, "read": 0.5}
    assert (stream.duplicates, stream.late) == ({"events": 3}, {"exposures": 2})
    assert (stream.late_outcomes, stream.lost, stream.set_aside) == (1, 5, 6)
    assert found.model.quality["recall"] == {"loss": 1.25, "hr_at_10": 0.5}
    assert found.model.quality["click"] == {"auc": 0.75}


def test_a_held_version_and_dead_letters(
    config: RunConfig, log: EventLog, registry: Registry
) -> None:
    for version in (1, 2):
        publish(registry, version, end=version)
    registry.rollback()
    for reason in ("not_json", "too_deep", "not_json"):
        letter = DeadLetter(topic=EVENTS, partition=0, offset=0, ts=1, reason=reason, field="")
        log.append(DEAD_LETTER, [Record(b"events/0/0", encode(letter), 1)])
    found = status(config)
    assert (found.model.version, found.model.held, found.model.newest) == (1, True, 2)
    assert found.log.dead_letters == 3
    assert found.log.reasons == {"not_json": 2, "too_deep": 1}


def test_the_newest_whole_checkpoint_is_named(
    config: RunConfig, log: EventLog, registry: Registry
) -> None:
    store = Store(config.state_dir)
    for name, files in (("3", ["manifest.json"]), ("12", ["manifest.json"]), ("15", ["rows"])):
        written = dict.fromkeys(files, b"{}")
        store.write_folder(f"checkpoints/{name}", written, "manifest.json")
    assert status(config).checkpoint == 12


def test_there_must_be_a_registry_and_what_was_told_must_be_whole(
    config: RunConfig, log: EventLog
) -> None:
    with pytest.raises(RegistryError, match="there is no registry at"):
        status(config)
    Registry(config.registry, create=True)
    Store(config.state_dir).write(NAME, b"{")
    with pytest.raises(StateError, match=r"last\.json .* is damaged"):
        status(config)
