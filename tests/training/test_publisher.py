"""A learner's versions: full and deltas, the same from the same plans, whatever came between."""

import json
import logging
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import VersionCorrupt, VersionMissing
from ray_rec.log.window import Window
from ray_rec.registry import Current, Manifest, Registry, Version
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.plans import PlanStore
from ray_rec.training.publisher import Candidate, Kind, Publisher
from tests.model import toy

SMALL = (
    "model.dim=16",
    "model.text_dim=16",
    "model.tower_dim=16",
    "model.exact_items=0",
    "model.negatives=4",
    "learner.warmup_steps=1",
    "training.keep_versions=100",
)


def config_in(folder: Path, *changes: str) -> RunConfig:
    places = (f"registry={folder}/registry", f"state_dir={folder}/state")
    return load_config(None, (*SMALL, *places, *changes), environ={})


class Trainer:
    """What a worker of rank 0 does with a learner, a gate and a publisher."""

    def __init__(self, config: RunConfig) -> None:
        self.learner = Learner(config.model, config.learner)
        self.learner.observe(toy.items(), toy.text_vectors())
        self.gate = Gate(config.model, 8, 100.0)
        self.gate.add(toy.table(toy.ring_rows(8, seed=99)))
        self.publisher = Publisher(config, "words")
        self.rows = [f"i{n}" for n in range(toy.NUM_ITEMS)]

    def learn(self, number: int, new_items: int = 0) -> None:
        end = len(self.rows) + new_items
        raw = toy.text_vectors(end)[len(self.rows) :]
        self.learner.observe(toy.items(len(self.rows), end), raw)
        self.rows += [f"i{n}" for n in range(len(self.rows), end)]
        rows = toy.ring_rows(8, seed=number)
        self.learner.learn(toy.window(number, rows, end), toy.table(rows), 1)

    def publish(self, number: int, kind: Kind) -> Manifest:
        popularity = toy.popularity(len(self.rows))
        candidate = Candidate(number, self.rows, {"events": {0: number}}, popularity, {})
        self.publisher.begin(self.learner, candidate, self.gate, kind)
        manifest = self.publisher.flush()
        assert manifest is not None
        return manifest

    def run(self, first: int, last: int, full_every: int = 100) -> None:
        """Learn windows `first` to `last`; a version after each, one new item in each."""
        for number in range(first, last + 1):
            self.learn(number, new_items=1)
            self.publish(number + 1, "delta" if number % full_every else "full")


def equal(version: Version, learner: Learner) -> bool:
    tensors = learner.export()
    return version.tensors.keys() == tensors.keys() and all(
        torch.equal(tensor, tensors[name]) for name, tensor in version.tensors.items()
    )


def test_deltas_lead_to_the_very_tensors_of_the_learner(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path))
    registry = Registry(f"{tmp_path}/registry")
    have = None
    for number in range(6):
        trainer.learn(number, new_items=number % 3)
        assert trainer.publish(number + 1, "delta" if number % 4 else "full").promoted
        have = registry.load(number + 1, have)
        assert equal(have, trainer.learner)
        assert have.rows == trainer.rows
        assert equal(registry.load(number + 1), trainer.learner)
    kinds = [registry.manifest(number).kind for number in registry.versions()]
    assert kinds == ["full", "delta", "delta", "delta", "full", "delta"]
    assert registry.manifest(4).num_items == toy.NUM_ITEMS + 0 + 1 + 2 + 0
    assert registry.current() == Current(6, held=False)


def test_a_delta_holds_touched_rows_only(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path))
    trainer.run(0, 0)
    trainer.learn(1)
    trainer.publish(2, "delta")
    folder = tmp_path / "registry/versions"
    names = ("model.safetensors", "rows.arrow")
    full, delta = (
        {n: (folder / v / n).stat().st_size for n in names} for v in ("00000001", "00000002")
    )
    assert delta["rows.arrow"] < full["rows.arrow"]
    assert delta["model.safetensors"] < full["model.safetensors"]


def test_manifests_say_what_was_learned_and_how(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    trainer = Trainer(config)
    plans = PlanStore(f"{config.state_dir}/plans")
    windows = [Window(k, {"events": {0: (k, k + 1)}}, publish="delta") for k in range(4)]
    for window in windows[:3]:
        plans.put(window)
    plans.amend(Window(1, windows[1].ranges, rate_scale=0.1))
    trainer.learn(0)
    trainer.publish(1, "full")
    trainer.learn(1)
    trainer.learn(2)
    trainer.publish(3, "delta")
    first, second = (Registry(config.registry).manifest(number) for number in (1, 3))
    assert (first.parent, first.windows, second.parent, second.windows) == (None, (0, 0), 1, (1, 2))
    assert [plan["number"] for plan in second.plans] == [1, 2]
    assert Window.from_json(json.dumps(second.plans[0])).rate_scale == 0.1
    assert Window.from_json(json.dumps(second.plans[1])) == windows[2]
    assert set(second.config) == {"features", "encoder", "model", "learner"}
    assert second.config | second.run == json.loads(json.dumps(config.to_dict()))
    assert second.base == first.as_base()
    assert trainer.publisher.last == second.as_base()


def test_two_runs_in_different_places_give_the_same_digests(tmp_path: Path) -> None:
    digests = []
    for name, change in (("one", "training.keep_versions=50"), ("two", "serving.pool=77")):
        config = config_in(tmp_path / name, f"log=sqlite:///{tmp_path}/{name}.db", change)
        Trainer(config).run(0, 3)
        registry = Registry(config.registry)
        digests.append([registry.manifest(number).digest for number in registry.versions()])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 4
    other = config_in(tmp_path / "other", "learner.seed=1")
    Trainer(other).run(0, 0)
    assert Registry(other.registry).manifest(1).digest != digests[0][0]


def test_a_restart_from_a_checkpoint_makes_the_same_deltas(tmp_path: Path) -> None:
    calm, broken = (config_in(tmp_path / name) for name in ("calm", "broken"))
    Trainer(calm).run(0, 7)
    before = Trainer(broken)
    before.run(0, 2)
    before.learn(3, new_items=1)  # learned, not yet published
    state, last, rows = before.learner.state(), before.publisher.last, list(before.rows)
    before.publish(4, "delta")
    before.run(4, 5)  # what the crash takes away again

    after = Trainer(broken)
    after.learner.load(state)
    after.publisher.last, after.rows = last, rows
    after.publish(4, "delta")
    after.run(4, 7)
    one, other = Registry(calm.registry), Registry(broken.registry)
    assert one.versions() == other.versions() == list(range(1, 9))
    for number in one.versions():
        assert one.manifest(number).digest == other.manifest(number).digest, number
    assert equal(other.load(8), after.learner)


def test_versions_made_otherwise_stay_and_the_next_new_one_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a run goes on with other workers: sums differ in their last bits."""
    Trainer(config_in(tmp_path)).run(0, 3)
    registry = Registry(f"{tmp_path}/registry")
    digests = [registry.manifest(number).digest for number in registry.versions()]
    other = Trainer(config_in(tmp_path, "learner.id_lr=0.06"))
    with caplog.at_level(logging.ERROR):
        other.run(0, 5)
    assert caplog.text.count("never rewritten") == 4
    assert [registry.manifest(number).digest for number in range(1, 5)] == digests
    assert [registry.manifest(number).kind for number in (5, 6)] == ["full", "delta"]
    assert equal(registry.load(6), other.learner)


def test_where_the_base_is_gone_a_full_version_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Trainer(config_in(tmp_path / "old"))
    old.run(0, 2)
    fresh = Trainer(config_in(tmp_path / "fresh"))
    fresh.learner.load(old.learner.state())
    fresh.publisher.last, fresh.rows = old.publisher.last, list(old.rows)
    with caplog.at_level(logging.ERROR):
        fresh.run(3, 4)
    registry = Registry(f"{tmp_path}/fresh/registry")
    assert [registry.manifest(number).kind for number in registry.versions()] == ["full", "delta"]
    assert registry.manifest(4).parent == 3
    assert equal(registry.load(5), fresh.learner)
    assert "version 4 is full" in caplog.text


def test_a_failed_candidate_is_no_hole_in_the_chain(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path))
    registry = Registry(f"{tmp_path}/registry")
    trainer.run(0, 1)
    held_out, trainer.gate = trainer.gate, Gate(config_in(tmp_path).model, 8, -1.0)
    trainer.gate.add(toy.table(toy.ring_rows(8, seed=99)))
    trainer.learn(2)
    assert not trainer.publish(3, "delta").promoted
    assert registry.current() == Current(2, held=False)
    trainer.gate = held_out
    trainer.learn(3)
    assert trainer.publish(4, "delta").promoted
    assert equal(registry.load(4), trainer.learner)
    judged = registry.manifest(4).gate.metrics
    assert judged["incumbent_loss"] == pytest.approx(
        registry.manifest(2).gate.metrics["candidate_loss"], rel=0.05
    ), "it is compared with the version in service, not with the one that failed"
    assert judged["incumbent_loss"] != registry.manifest(3).gate.metrics["candidate_loss"]


def test_a_rollback_is_what_candidates_are_compared_with(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path))
    registry = Registry(f"{tmp_path}/registry")
    trainer.run(0, 2)
    registry.rollback(1)
    trainer.learn(3)
    trainer.publish(4, "delta")
    assert registry.current() == Current(1, held=True)
    assert registry.manifest(4).parent == 3
    again = Trainer(config_in(tmp_path))
    verdict = again.gate.judge(
        trainer.learner.export(), registry.load(1).tensors, toy.popularity(len(trainer.rows)), 4
    )
    assert registry.manifest(4).gate.metrics == verdict.metrics


def test_old_versions_go_when_a_full_one_came(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path, "training.keep_versions=2"))
    trainer.run(0, 8, full_every=4)
    registry = Registry(f"{tmp_path}/registry")
    assert registry.versions() == [5, 6, 7, 8, 9]
    with pytest.raises(VersionMissing):
        registry.load(4)
    assert registry.load(8).manifest.version == 8


def test_learning_goes_on_beside_a_publication_and_changes_nothing_of_it(tmp_path: Path) -> None:
    calm, busy = (Trainer(config_in(tmp_path / name)) for name in ("calm", "busy"))
    for trainer in (calm, busy):
        trainer.run(0, 0)
        trainer.learn(1, new_items=1)
    calm.publish(2, "delta")
    popularity, offsets = toy.popularity(len(busy.rows)), {"events": {0: 2}}
    candidate = Candidate(2, list(busy.rows), offsets, popularity, {})
    busy.publisher.begin(busy.learner, candidate, busy.gate, "delta")
    busy.learn(2, new_items=1)
    busy.publisher.flush()
    calm.learn(2, new_items=1)
    assert calm.publish(3, "delta").digest == busy.publish(3, "delta").digest
    one, other = (Registry(f"{tmp_path}/{name}/registry") for name in ("calm", "busy"))
    assert one.manifest(2).digest == other.manifest(2).digest


def test_a_publication_that_failed_is_told_before_the_next_one(tmp_path: Path) -> None:
    trainer = Trainer(config_in(tmp_path))
    trainer.run(0, 0)
    current = tmp_path / "registry/versions/00000001/manifest.json"
    current.write_text("{")
    trainer.learn(1)
    popularity = toy.popularity(len(trainer.rows))
    candidate = Candidate(2, trainer.rows, {"events": {0: 2}}, popularity, {})
    trainer.publisher.begin(trainer.learner, candidate, trainer.gate, "full")
    with pytest.raises(VersionCorrupt):
        trainer.publisher.flush()
    assert trainer.publisher.flush() is None
