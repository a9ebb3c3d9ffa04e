"""Snapshots of the state, whole or as changes of an earlier one."""

import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from ray_rec.errors import RegistryError, VersionMissing
from ray_rec.registry import Registry


def put(
    registry: Registry, number: int, base: int | None = None, also: tuple[int, ...] = ()
) -> None:
    table = pa.table({"user": ["a"], "n": [number]})
    registry.publish_snapshot(number, {"users": table}, {"events": {0: number}}, base, also)


def numbers(registry: Registry, number: int | None = None) -> list[int] | None:
    """The numbers in the segments of a snapshot (the newest), None where there is none."""
    found = registry.latest_snapshot() if number is None else registry.snapshot(number)
    return found and [segment["users"]["n"][0].as_py() for segment in found.segments]


@pytest.fixture(params=["local", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    local = request.param == "local"
    return Registry(str(tmp_path) if local else f"memory://{uuid.uuid4().hex}", create=True)


def test_the_newest_is_found_and_any_by_its_number(registry: Registry) -> None:
    assert registry.latest_snapshot() is None
    for number in (3, 7):
        put(registry, number)
    newest = registry.latest_snapshot()
    assert newest is not None
    assert newest.number == 7
    assert newest.offsets == {"events": {0: 7}}
    assert newest.segments[0]["users"].to_pydict() == {"user": ["a"], "n": [7]}
    assert numbers(registry, 3) == [3]
    assert registry.snapshot(5) is None


def test_changes_come_after_what_they_build_on(registry: Registry) -> None:
    put(registry, 3)
    put(registry, 7, base=3)
    put(registry, 8, base=7)
    newest = registry.latest_snapshot()
    assert newest is not None
    assert newest.offsets == {"events": {0: 8}}
    assert numbers(registry) == [3, 7, 8]
    assert numbers(registry, 7) == [3, 7]


def test_changes_of_nothing_are_refused(registry: Registry) -> None:
    put(registry, 3)
    with pytest.raises(VersionMissing, match="no snapshot 4; it has 3"):
        put(registry, 7, base=4)
    with pytest.raises(RegistryError, match="snapshot 2 cannot build on 3"):
        put(registry, 2, base=3)
    assert registry.snapshot(7) is None


def test_one_that_is_there_stays_as_it_is(registry: Registry) -> None:
    put(registry, 3)
    put(registry, 7, base=3)
    put(registry, 7)
    assert numbers(registry, 7) == [3, 7]


def test_what_is_kept_keeps_what_it_builds_on(registry: Registry) -> None:
    put(registry, 1)
    put(registry, 2)
    for number in range(3, 9):
        put(registry, number, base=number - 1)
    assert registry.snapshot(1) is None
    assert numbers(registry, 6) == [2, 3, 4, 5, 6]
    put(registry, 9)
    put(registry, 10)
    assert numbers(registry, 8) == [2, 3, 4, 5, 6, 7, 8]
    put(registry, 11, also=(5,))
    assert [n for n in range(1, 12) if registry.snapshot(n)] == [2, 3, 4, 5, 9, 10, 11]


def test_an_older_one_that_is_made_again_stays_beside_newer_ones(registry: Registry) -> None:
    for number in (5, 6, 7):
        put(registry, number)
    put(registry, 4)
    assert numbers(registry, 4) == [4]
    put(registry, 8)
    assert registry.snapshot(4) is None


@pytest.mark.parametrize("part", ["users.arrow", "manifest.json"])
def test_a_damaged_one_is_passed_over_with_all_that_build_on_it(part: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path), create=True)
    put(registry, 1)
    put(registry, 2)
    put(registry, 3, base=2)
    (tmp_path / "snapshots/00000002" / part).write_bytes(b"gone")
    assert numbers(registry) == [1]
    assert registry.snapshot(3) is None


def test_a_base_of_other_content_is_not_taken(tmp_path: Path) -> None:
    registry, other = (Registry(str(tmp_path / name), create=True) for name in ("one", "other"))
    put(registry, 2)
    put(registry, 3, base=2)
    other.publish_snapshot(2, {"users": pa.table({"user": ["z"], "n": [2]})}, {"events": {0: 2}})
    place = "snapshots/00000002"
    (tmp_path / "one" / place).rename(tmp_path / "gone")
    (tmp_path / "other" / place).rename(tmp_path / "one" / place)
    assert registry.snapshot(3) is None
    assert numbers(registry) == [2]
