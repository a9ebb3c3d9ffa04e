"""Versions as changes of earlier ones: chains are followed, verified, kept and rolled back to."""

import dataclasses
import os
import uuid
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.errors import RegistryError, VersionConflict, VersionCorrupt, VersionMissing
from ray_rec.model.changes import Changes, Rows, merged
from ray_rec.registry import Current, Draft, Gate, Manifest, Registry, Version

DRAFT = Draft(None, (0, 0), {"events": {0: 1}}, {"model": {"dim": 2}}, encoder="e")


def rows(*places: int, value: float) -> Rows:
    return Rows(torch.tensor(places), torch.full((len(places), 2), value))


def full(registry: Registry, number: int, items: int = 3) -> Manifest:
    """Version `number`: a table of ones for items i0, i1, …, and a weight that is the number."""
    tensors = {"w": torch.tensor(float(number)), "items.id": torch.ones(items, 2)}
    return registry.publish(number, tensors, [f"i{n}" for n in range(items)], DRAFT)


def delta(
    registry: Registry,
    number: int,
    base: Manifest,
    changes: Changes | None = None,
    more: tuple[str, ...] = (),
    gate: Gate | None = None,
) -> Manifest:
    """Version `number` on top of another; by itself it sets row 0 and the weight to its number."""
    if changes is None:
        changes = {"items.id": rows(0, value=float(number))}
    draft = dataclasses.replace(DRAFT, base=base.as_base(), gate=gate or DRAFT.gate)
    return registry.publish(number, {"w": torch.tensor(float(number)), **changes}, more, draft)


def chain(registry: Registry, first: int, last: int) -> list[Manifest]:
    """A full version and deltas on it, one after the other."""
    made = [full(registry, first)]
    for number in range(first + 1, last + 1):
        made.append(delta(registry, number, made[-1]))
    return made


@pytest.fixture(params=["local", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    local = request.param == "local"
    return Registry(str(tmp_path) if local else f"memory://{uuid.uuid4().hex}", create=True)


def test_a_delta_changes_rows_appends_some_and_leaves_the_rest(registry: Registry) -> None:
    base = full(registry, 1)
    changes = {"items.id": rows(1, 4, 3, value=7.0), "new": torch.tensor([5])}
    manifest = delta(registry, 2, base, changes, ("i3", "ünï"))
    assert (manifest.kind, manifest.base, manifest.num_items) == ("delta", base.as_base(), 5)
    assert (base.kind, base.base) == ("full", None)
    version = registry.load(2)
    assert version.manifest == manifest
    assert version.rows == ["i0", "i1", "i2", "i3", "ünï"]
    assert version.tensors["items.id"][:, 0].tolist() == [1, 7, 1, 7, 7]
    assert float(version.tensors["w"]) == 2.0
    assert version.tensors["new"].tolist() == [5]
    assert registry.load(1).tensors["items.id"].tolist() == [[1, 1], [1, 1], [1, 1]]
    assert registry.current() == Current(2, held=False)


def test_a_follower_that_missed_ten_deltas_catches_up(registry: Registry) -> None:
    made = chain(registry, 1, 3)
    have = registry.load(3)
    for number in range(4, 14):
        changes = {"items.id": rows(number % 3, len(have.rows) + number - 4, value=float(number))}
        made.append(delta(registry, number, made[-1], changes, (f"new{number}",)))
    caught_up, whole = registry.load(13, have), registry.load(13)
    assert caught_up.rows == whole.rows
    assert caught_up.rows[3:] == [f"new{number}" for number in range(4, 14)]
    assert caught_up.manifest == whole.manifest
    for name, tensor in whole.tensors.items():
        assert torch.equal(caught_up.tensors[name], tensor), name
    # rows 0, 1 and 2 were changed last by versions 12, 13 and 11
    assert whole.tensors["items.id"][:, 0].tolist() == [12, 13, 11, *range(4, 14)]
    assert have.tensors["items.id"][:, 0].tolist() == [3, 1, 1], "what is had stays as it is"
    assert have.rows == ["i0", "i1", "i2"]


def test_from_a_version_on_the_chain_nothing_older_is_read(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    chain(registry, 1, 5)
    have = registry.load(3)
    for number in (1, 2, 3):
        (tmp_path / f"versions/{number:08d}/model.safetensors").unlink()
    assert registry.load(5, have).tensors["items.id"][0, 0] == 5
    with pytest.raises(VersionCorrupt, match=r"00000001/model\.safetensors"):
        registry.load(5)
    assert registry.load(3, have) is have


def test_a_version_that_is_not_on_the_chain_is_no_start(registry: Registry) -> None:
    chain(registry, 1, 3)
    have = registry.load(3)
    full(registry, 4)
    assert registry.load(4, have).tensors["items.id"][0, 0] == 1
    assert registry.load(2, have).tensors["items.id"][0, 0] == 2


def test_a_version_of_the_same_number_elsewhere_is_no_start(tmp_path: Path) -> None:
    registry, other = (Registry(str(tmp_path / name), create=True) for name in ("one", "other"))
    chain(registry, 1, 3)
    full(other, 2)
    assert registry.load(3, other.load(2)).tensors["items.id"][0, 0] == 3


def test_a_long_chain_copies_a_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"items.id": torch.zeros(4, 2), "items.text": torch.zeros(4, 2)}
    changes = [{"items.id": rows(n % 6, value=float(n))} for n in range(60)]
    made = []
    empty = torch.empty

    def counted(*args: int, **kwargs: torch.dtype) -> torch.Tensor:
        made.append(args)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", counted)
    after = merged(base, changes)
    assert made == [(6, 2)]
    assert after["items.id"][:, 0].tolist() == [54, 55, 56, 57, 58, 59]
    assert after["items.text"] is base["items.text"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2)), max_size=12))
@settings(deadline=None)
def test_changes_at_once_are_changes_one_after_the_other(
    drawn: list[tuple[bool, int, int]],
) -> None:
    """Whole tensors and rows in any order; each change may append as well."""
    changes: list[Changes] = []
    length = 3
    for number, (whole, row, more) in enumerate(drawn):
        if whole:
            changes.append({"t": torch.full((length, 2), float(number))})
            continue
        places = sorted({row % length, *range(length, length + more)})
        changes.append({"t": rows(*places, value=float(number))})
        length += more
    start = {"t": torch.full((3, 2), -1.0)}
    one_by_one: dict[str, torch.Tensor] = start
    for change in changes:
        one_by_one = merged(one_by_one, [change])
    assert torch.equal(merged(start, changes)["t"], one_by_one["t"])
    assert start["t"].tolist() == [[-1.0, -1.0]] * 3


def test_publishing_again_is_a_no_op_and_other_content_a_conflict(registry: Registry) -> None:
    made = chain(registry, 1, 3)
    assert delta(registry, 3, made[1]) == made[2]
    with pytest.raises(VersionConflict, match="version 3"):
        delta(registry, 3, made[1], {"items.id": rows(1, value=3.0)})
    with pytest.raises(VersionConflict, match="version 3"):
        delta(registry, 3, made[1], {"items.id": rows(0, value=3.0)}, ("i3",))
    with pytest.raises(VersionConflict, match="version 3"):
        delta(registry, 3, made[0])
    with pytest.raises(VersionConflict, match="version 3"):
        full(registry, 3)
    assert registry.load(3).tensors["items.id"][0, 0] == 3


def test_the_digest_covers_all_that_a_delta_builds_on(tmp_path: Path) -> None:
    """The same changes on another full version are another version."""
    one, other = (Registry(str(tmp_path / name), create=True) for name in ("one", "other"))
    left, right = full(one, 1), full(other, 1, items=4)
    assert delta(one, 2, left).digest != delta(other, 2, right).digest


def test_a_base_of_other_content_is_refused(tmp_path: Path) -> None:
    one, other = (Registry(str(tmp_path / name), create=True) for name in ("one", "other"))
    chain(one, 1, 3)
    chain(other, 1, 2)
    foreign = dataclasses.replace(other.manifest(2), digest="0" * 64)
    with pytest.raises(VersionCorrupt, match=r"version 4 .* builds on 2 with content 000000000000"):
        delta(one, 4, foreign)
    full(other, 3, items=5)
    for number in ("00000002", "00000003"):
        (tmp_path / "one/versions" / number).rename(tmp_path / number)
    (tmp_path / "other/versions/00000003").rename(tmp_path / "one/versions/00000002")
    (tmp_path / "00000003").rename(tmp_path / "one/versions/00000003")
    with pytest.raises(VersionCorrupt, match=r"version 3 .* builds on 2 with content"):
        one.load(3)


def test_a_base_that_is_gone_or_damaged_says_so(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    made = chain(registry, 1, 4)
    file = tmp_path / "versions/00000003/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(VersionCorrupt, match=r"00000003/model\.safetensors"):
        registry.load(4)
    (tmp_path / "versions/00000002/manifest.json").unlink()
    with pytest.raises(VersionMissing, match=r"version 3 .* builds on 2, which is gone"):
        registry.load(4)
    with pytest.raises(VersionMissing, match="publish a full one"):
        delta(registry, 5, made[-1])
    assert registry.versions() == [1, 3, 4]
    assert registry.current() == Current(4, held=False)


def test_a_base_must_be_older(registry: Registry) -> None:
    made = chain(registry, 2, 3)
    with pytest.raises(RegistryError, match="version 1 cannot build on 3"):
        delta(registry, 1, made[1])


def test_rows_of_a_table_need_a_base_that_has_it(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="name its base"):
        registry.publish(1, {"items.id": rows(0, value=1.0)}, [], DRAFT)
    assert registry.versions() == []
    base = full(registry, 1)
    delta(registry, 2, base, {"items.count": rows(0, value=1.0)})
    with pytest.raises(VersionCorrupt, match=r"items\.count"):
        registry.load(2)


def test_an_interrupted_delta_is_invisible_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(tmp_path), create=True)
    base = full(registry, 1)

    def die(*_args: object) -> None:
        raise OSError("the machine went away")

    for call in ("rename", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, die)
            with pytest.raises(RegistryError, match="the machine went away"):
                delta(registry, 2, base)
        assert registry.versions() == [1]
        assert registry.current() == Current(1, held=False)
    delta(registry, 2, base)
    assert registry.load(2).tensors["items.id"][0, 0] == 2


def test_prune_keeps_what_the_kept_ones_build_on(registry: Registry) -> None:
    chain(registry, 1, 4)
    chain(registry, 5, 9)
    chain(registry, 10, 12)
    assert registry.prune(keep=2) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert registry.versions() == [10, 11, 12]
    assert registry.load(12).tensors["items.id"][0, 0] == 12
    registry.rollback(11)
    full(registry, 13)
    full(registry, 14)
    assert registry.prune(keep=1) == [12, 13]
    assert registry.load(11).tensors["items.id"][0, 0] == 11


def test_a_delta_is_rolled_back_to_and_followed_from_there(registry: Registry) -> None:
    chain(registry, 1, 4)
    have = registry.load(4)
    assert registry.rollback(2) == Current(2, held=True)
    back = registry.load(2, have)
    assert back.tensors["items.id"][0, 0] == 2
    assert registry.release() == Current(4, held=False)
    again = registry.load(4, back)
    assert torch.equal(again.tensors["items.id"], have.tensors["items.id"])


def test_a_failed_delta_is_a_base_all_the_same(registry: Registry) -> None:
    base = full(registry, 1)
    failed = delta(registry, 2, base, gate=Gate(False, "worse"))
    assert registry.current() == Current(1, held=False)
    have = registry.load(1)
    delta(registry, 3, failed)
    assert registry.current() == Current(3, held=False)
    assert registry.load(3, have).manifest.base == failed.as_base()


def test_what_was_pruned_may_be_made_again_and_is_not_served(registry: Registry) -> None:
    """A trainer that goes back to an old checkpoint makes deltas whose bases are gone."""
    made = chain(registry, 1, 4)
    chain(registry, 5, 6)
    registry.prune(keep=2)
    again = delta(registry, 4, made[2])
    assert again.digest == made[3].digest
    assert not again.promoted
    assert registry.current() == Current(6, held=False)
    with pytest.raises(VersionMissing, match="builds on 3, which is gone"):
        registry.load(4)
    assert registry.prune(keep=2) == [4]


def test_a_version_is_whole_whichever_way_it_was_read(registry: Registry) -> None:
    chain(registry, 1, 3)
    ways: list[Version | None] = [None, registry.load(1), registry.load(2)]
    for have in ways:
        version = registry.load(3, have)
        assert version.tensors["items.id"].tolist() == [[3, 3], [1, 1], [1, 1]]
        assert version.rows == ["i0", "i1", "i2"]
        assert version.manifest.version == 3
