"""An ensemble published in a registry, and an engine that answers with it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import ensemble as job
from ray_rec.errors import RegistryError
from ray_rec.events import ITEMS
from ray_rec.features.state import FeatureState
from ray_rec.log import EventLog, open_log
from ray_rec.model.combining import Combine
from ray_rec.model.ensemble import EnsembleConfig
from ray_rec.registry import Registry, Version
from ray_rec.registry.ensembles import publish_ensemble
from ray_rec.serving.answers import Answer, Request
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.engine import Engine
from tests.serving import builders, shop
from tests.serving.test_engine import encode_missing, put, update

WORDS = builders.Words()
LATER_MS = shop.START_MS * 2


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with open_log(f"sqlite:///{tmp_path_factory.mktemp('log')}/log.db") as log:
        shop.fill(log)
        yield log


@pytest.fixture(scope="module")
def made(log: EventLog) -> tuple[list[Version], FeatureState]:
    pairs = [builders.version_of(log, number, WORDS) for number in (1, 2)]
    return [version for version, _ in pairs], pairs[0][1]


def _config(combine: Combine) -> EnsembleConfig:
    weights = (0.5, 0.5) if combine == "stacking" else ()
    return EnsembleConfig((builders.MODEL, builders.MODEL), combine, weights, weights)


def _engine(state: FeatureState, version: Version) -> Engine:
    own = FeatureState.restore(builders.FEATURES, [state.snapshot()])
    engine = Engine(builders.FEATURES, ServingConfig(), own)
    engine.swap(version)
    return engine


def _ask(engine: Engine, num: int = 48) -> Answer:
    request = Request(user_id="u1", request_id="r1", num=num, ts=LATER_MS, explain=True)
    return engine.recommend(request)


@pytest.mark.parametrize("combine", ["score-average", "rank-vote", "stacking"])
def test_an_engine_answers_with_an_ensemble_from_a_registry(
    combine: Combine, made: tuple[list[Version], FeatureState], tmp_path: Path
) -> None:
    versions, state = made
    registry = Registry(str(tmp_path), create=True)
    manifest = publish_ensemble(registry, 7, versions, _config(combine))
    current = registry.current()
    assert current is not None
    assert current.version == 7
    assert manifest.num_items == len(shop.items())
    engine = _engine(state, registry.load(7))
    answer = _ask(engine)
    assert answer.model_version == 7
    assert len(answer.items) == 48
    for item in answer.items:
        assert item.explain is not None
        recall = sum(v for name, v in item.explain.items() if name.startswith("recall."))
        p = item.p_click
        assert item.score == pytest.approx(recall + 0.5 * np.log(p / (1 - p)), abs=1e-4)
    assert engine.similar("tea-1", 3)
    update(engine, ITEMS, put("new-tea"))
    encode_missing(engine)
    assert "new-tea" in {item.item_id for item in _ask(engine, 60).items}


def test_the_average_lies_between_its_members(
    made: tuple[list[Version], FeatureState], tmp_path: Path
) -> None:
    versions, state = made
    registry = Registry(str(tmp_path), create=True)
    publish_ensemble(registry, 0, versions, _config("score-average"))
    answers = [_ask(_engine(state, v)) for v in (*versions, registry.load(0))]
    one, two, both = ({item.item_id: item.explain for item in a.items} for a in answers)
    for item_id, parts in both.items():
        for name in ("recall.taste", "recall.text", "p.click"):
            assert parts is not None
            mean = (one[item_id][name] + two[item_id][name]) / 2
            assert parts[name] == pytest.approx(mean, abs=1e-5)


def test_versions_that_do_not_fit_are_refused(
    made: tuple[list[Version], FeatureState], tmp_path: Path
) -> None:
    versions, _ = made
    registry = Registry(str(tmp_path), create=True)
    other = replace(versions[1].manifest, encoder="another")
    with pytest.raises(RegistryError, match="need one encoder"):
        publish_ensemble(
            registry, 0, [versions[0], replace(versions[1], manifest=other)], _config("rank-vote")
        )
    publish_ensemble(registry, 0, versions, _config("rank-vote"))
    with pytest.raises(RegistryError, match="single models"):
        publish_ensemble(registry, 1, [versions[0], registry.load(0)], _config("rank-vote"))


def test_one_command_publishes_the_versions_in_service(
    log: EventLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = [str(tmp_path / name) for name in ("a", "b")]
    for number, url in enumerate(urls, 1):
        builders.publish(log, Registry(url, create=True), number, WORDS)
    out = str(tmp_path / "both")
    monkeypatch.setattr(
        sys, "argv", ["ensemble", "--members", *urls, "--out", out, "--combine", "rank-vote"]
    )
    assert job.main() == 0
    assert json.loads(capsys.readouterr().out)["num_items"] == len(shop.items())
    loaded = Registry(out).load(0)
    assert loaded.manifest.offsets == Registry(urls[0]).load(1).manifest.offsets
    assert loaded.manifest.config["ensemble"]["combine"] == "rank-vote"
    Registry(str(tmp_path / "empty"), create=True)
    monkeypatch.setattr(
        sys, "argv", ["ensemble", "--members", str(tmp_path / "empty"), "--out", out]
    )
    with pytest.raises(RegistryError, match="no version in service"):
        job.main()
