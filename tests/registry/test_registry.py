"""Versions and snapshots on disk and on an object store (fsspec's memory file system)."""

import dataclasses
import json
import os
import uuid
from pathlib import Path

import pytest
import torch

from ray_rec.errors import (
    ConfigError,
    RegistryError,
    VersionConflict,
    VersionCorrupt,
    VersionMissing,
)
from ray_rec.registry import Base, Current, Draft, Gate, Registry, content_digest
from ray_rec.registry.store import Store

TENSORS = {"model.w": torch.arange(6.0).reshape(2, 3), "items.count": torch.tensor([4, 5])}
ROWS = ["apple", "pear, ünïcode"]
DRAFT = Draft(
    parent=None,
    windows=(0, 0),
    offsets={"events": {0: 10, 1: 12}, "items": {0: 2}},
    config={"model": {"dim": 3}, "seed": 7},
    encoder="abc",
    metrics={"recall_loss": 1.5},
    gate=Gate(True, "first version", {"recall_loss": 1.5}),
)
FAILED = dataclasses.replace(DRAFT, gate=Gate(False, "recall loss rose by 40 %"))


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "registry")
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def registry(url: str) -> Registry:
    return Registry(url, create=True)


def numbered(version: int) -> dict[str, torch.Tensor]:
    return {**TENSORS, "number": torch.tensor(float(version))}


def fill(registry: Registry, *versions: int) -> None:
    for version in versions:
        registry.publish(version, numbered(version), ROWS, DRAFT)


def test_a_version_comes_back_as_it_was_published(registry: Registry, url: str) -> None:
    published = registry.publish(1, TENSORS, ROWS, DRAFT)
    version = Registry(url).load(1)
    assert version.rows == ROWS
    assert version.manifest == published
    assert version.manifest.offsets == {"events": {0: 10, 1: 12}, "items": {0: 2}}
    assert version.manifest.gate == DRAFT.gate
    assert version.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert version.tensors[name].dtype == tensor.dtype
        assert torch.equal(version.tensors[name], tensor)
    assert registry.current() == Current(1, held=False)


def test_publishing_again_is_a_no_op_and_other_content_a_conflict(registry: Registry) -> None:
    first = registry.publish(1, TENSORS, ROWS, DRAFT)
    elsewhere = dataclasses.replace(
        DRAFT,
        metrics={"recall_loss": 9.0},
        run={"log": "sqlite:///other.db"},
        plans=[{"number": 0}],
    )
    assert registry.publish(1, TENSORS, ROWS, elsewhere) == first
    with pytest.raises(VersionConflict, match=r"version 1 .* never rewritten"):
        registry.publish(1, TENSORS, ROWS[::-1], DRAFT)
    assert registry.load(1).rows == ROWS


def test_current_never_goes_back_when_old_versions_are_made_again(registry: Registry) -> None:
    fill(registry, 1, 2, 3)
    fill(registry, 2)
    assert registry.current() == Current(3, held=False)


def test_a_failed_gate_is_kept_and_marked_and_never_current(registry: Registry) -> None:
    fill(registry, 1)
    manifest = registry.publish(2, numbered(2), ROWS, FAILED)
    assert not manifest.promoted
    assert registry.versions() == [1, 2]
    assert registry.current() == Current(1, held=False)
    with pytest.raises(RegistryError, match="did not pass the gate"):
        registry.rollback(2)
    assert registry.release() == Current(1, held=False)


def test_rollback_holds_until_released(registry: Registry) -> None:
    fill(registry, 1, 2, 3)
    assert registry.rollback() == Current(2, held=True)
    assert registry.rollback() == Current(1, held=True)
    fill(registry, 4)
    assert registry.current() == Current(1, held=True)
    assert registry.rollback(3) == Current(3, held=True)
    assert registry.release() == Current(4, held=False)
    fill(registry, 5)
    assert registry.current() == Current(5, held=False)


def test_nothing_to_roll_back_to(registry: Registry) -> None:
    assert registry.current() is None
    assert registry.release() is None
    fill(registry, 1)
    with pytest.raises(RegistryError, match="no older version"):
        registry.rollback()
    with pytest.raises(VersionMissing, match="has no version 9; it has 1"):
        registry.rollback(9)


def test_encoders_are_kept_as_long_as_a_version_names_them(registry: Registry) -> None:
    for number in range(1, 5):
        registry.encoders.write(f"e{number}", {"config.json": b"{}", "x.txt": b"%d" % number})
        draft = dataclasses.replace(DRAFT, encoder=f"e{number}")
        registry.publish(number, numbered(number), ROWS, draft)
    registry.encoders.write("e4", {"config.json": b"other", "x.txt": b""})
    store = Store(registry.url)
    assert store.read("encoders/e4/x.txt") == b"4", "it was there and stays"
    registry.prune(keep=2)
    assert store.names("encoders") == ["e3", "e4"]
    assert store.read("encoders/e3/config.json") == b"{}"


def test_prune_keeps_the_newest_the_current_and_the_one_before(registry: Registry) -> None:
    fill(registry, 1, 2, 3, 4, 5, 6)
    registry.rollback(3)
    assert registry.prune(keep=2) == [1, 4]
    assert registry.versions() == [2, 3, 5, 6]
    assert registry.load(3).manifest.version == 3


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    fill(registry, 1, 2)
    file = tmp_path / "versions/00000001/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(VersionCorrupt, match=r"model\.safetensors"):
        registry.load(1)
    (tmp_path / "versions/00000002/rows.arrow").unlink()
    with pytest.raises(VersionCorrupt, match=r"rows\.arrow"):
        registry.load(2)
    (tmp_path / "versions/00000002/manifest.json").write_text("{}")
    with pytest.raises(VersionCorrupt, match="not a manifest"):
        registry.load(2)


def test_a_manifest_of_a_later_release_is_refused(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    fill(registry, 1)
    file = tmp_path / "versions/00000001/manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    with pytest.raises(RegistryError, match="schema 99"):
        registry.manifest(1)


def test_an_interrupted_publication_is_invisible_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(tmp_path), create=True)
    fill(registry, 1)
    for die_at in ("rename", "fsync"):
        calls = {"rename": os.rename, "fsync": os.fsync}

        def die(*_args: object) -> None:
            raise OSError("the machine went away")

        monkeypatch.setattr(os, die_at, die)
        with pytest.raises(RegistryError, match="the machine went away"):
            fill(registry, 2)
        monkeypatch.setattr(os, die_at, calls[die_at])
        assert registry.versions() == [1]
        assert registry.current() == Current(1, held=False)
        with pytest.raises(VersionMissing):
            registry.load(2)
    fill(registry, 2)
    assert registry.load(2).manifest.version == 2


def test_a_folder_without_its_manifest_is_replaced(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    half = tmp_path / "versions/00000001"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert registry.versions() == []
    fill(registry, 1)
    assert registry.load(1).rows == ROWS


def test_what_is_not_a_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no registry at"):
        Registry(str(tmp_path / "none"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RegistryError, match="is not a registry"):
        Registry(str(tmp_path), create=True)
    with pytest.raises(RegistryError, match="is not a registry"):
        Registry(str(tmp_path / "notes.txt"))
    with pytest.raises(ConfigError, match="nope://"):
        Registry("nope://bucket/x")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_digest_is_of_the_content_alone() -> None:
    def digest(**changes: object) -> str:
        parts: dict[str, object] = {
            "tensors": TENSORS,
            "rows": ROWS,
            "offsets": DRAFT.offsets,
            "config": DRAFT.config,
            **changes,
        }
        return content_digest(**parts)

    same = digest()
    assert digest(tensors=dict(reversed(TENSORS.items()))) == same
    assert digest(offsets={"items": {0: 2}, "events": {1: 12, 0: 10}}) == same
    assert digest(tensors={**TENSORS, "model.w": TENSORS["model.w"].reshape(3, 2)}) != same
    assert digest(tensors={**TENSORS, "items.count": torch.tensor([4.0, 5.0])}) != same
    assert digest(tensors={**TENSORS, "items.count": torch.tensor([4, 6])}) != same
    assert digest(rows=["apple", "plum"]) != same
    assert digest(offsets={"events": {0: 11, 1: 12}, "items": {0: 2}}) != same
    assert digest(config={"model": {"dim": 4}, "seed": 7}) != same
    on_eight = digest(base=Base(1, "8" * 64, 2))
    assert on_eight != same
    assert digest(base=Base(1, "9" * 64, 2)) not in (same, on_eight)


def test_a_bfloat16_and_an_empty_tensor_are_stored(registry: Registry) -> None:
    tensors = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.empty(0, 4)}
    registry.publish(1, tensors, [], DRAFT)
    loaded = registry.load(1)
    assert torch.equal(loaded.tensors["a"], tensors["a"])
    assert loaded.tensors["b"].shape == (0, 4)
    assert loaded.rows == []
