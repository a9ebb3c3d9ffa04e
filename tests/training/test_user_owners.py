"""Owners of users on a real Ray cluster: with one of them gone, no window counts once or half."""

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from ray_rec.config import RunConfig
from ray_rec.errors import StateError, StateLost
from ray_rec.features.state import FeatureState
from ray_rec.registry import Registry
from ray_rec.training.checkpoint import Checkpoints
from ray_rec.training.owner import StateOwner
from ray_rec.training.stream import run_stream
from tests.features.builders import DAY, T0, Stream, check_same_state, control, event, exposure
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., RunConfig]
THREE = "training.state_owners=3"


def windows() -> list[Any]:
    """Return plans with their tables: ten users who see, click, and (one of them) opt out."""
    stream, users = Stream(), [f"u{n}" for n in range(10)]
    seen = [exposure(f"r{user}", user, T0 + 1, ["a", "b"]) for user in users]
    clicks = [event(user, "b", T0 + 2, "click", request_id=f"r{user}") for user in users]
    return [
        stream.plan(0, *[event(user, "a", T0) for user in users], *seen),
        stream.plan(1, *clicks, control("u3", "opt_out", T0 + 3)),
        stream.plan(2, advance_to_ms=T0 + DAY),
    ]


def results(owner: StateOwner, planned: list[Any]) -> list[Any]:
    out = []
    for window, tables in planned:
        rows = owner.apply(window, tables, [])
        side = owner.side(window.number)
        out.append(
            (rows, side.lesson.held_out, side.window.counts, side.window.popularity.tolist())
        )
    return out


def process_of(actor: Any) -> int | None:
    """Return the pid of an actor, None while there is none."""
    try:
        pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    except RayError:
        return None
    return pid


def kill(actor: Any) -> None:
    """Kill an actor's process, and wait until Ray has rebuilt it."""
    before = process_of(actor)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: process_of(actor) not in (None, before))


def test_who_was_killed_is_missed_and_all_begin_anew(make_config: MakeConfig) -> None:
    planned, alone = windows(), StateOwner(make_config("alone"))
    assert alone.resume(0)
    wanted = results(alone, planned)
    assert sum(len(rows) for rows, *_ in wanted) > 20
    assert wanted[1][2]["opted_out"] == 0 < wanted[1][2]["erased_exposures"]

    owner = StateOwner(make_config("three", THREE))
    assert owner.resume(0)
    assert results(owner, planned[:2]) == wanted[:2]
    kill(owner.user_owners[1].actor)
    with pytest.raises(StateLost, match="owner 1 of 3 of the users is lost"):
        owner.apply(*planned[2], [])
    with pytest.raises(StateError, match="window 1 is not held"):
        owner.side(1)
    with pytest.raises(StateError, match="before the state was restored"):
        owner.apply(*planned[2], [])
    assert owner.resume(0)
    assert results(owner, planned) == wanted


def test_a_state_that_cannot_be_told_whole_is_not_told(make_config: MakeConfig) -> None:
    planned, owner = windows(), StateOwner(make_config("three", THREE))
    assert owner.resume(0)
    results(owner, planned[:1])
    kill(owner.user_owners[2].actor)
    with pytest.raises(StateLost, match="owner 2 of 3"):
        owner.snapshot(1)
    assert owner.snapshot(1) is None
    assert owner.resume(0)


def test_a_run_goes_on_with_another_number_of_owners(make_config: MakeConfig) -> None:
    """The versions of one owner, of three, and of three that go on where one stopped."""
    kept = "training.checkpoint_interval_s=0"
    alone, three = make_config("alone", kept), make_config("three", kept, THREE)
    report = run_stream(alone, bounded=True)
    shutil.copytree(f"{alone.state_dir}/plans", f"{three.state_dir}/plans")
    assert run_stream(three, bounded=True).version == report.version
    check_same_end(three, alone)

    middle = Checkpoints.of(alone).numbers()[0]
    assert 0 < middle < report.windows
    later = make_config("later", kept, THREE)
    for part in ("plans", "checkpoints"):
        shutil.copytree(f"{alone.state_dir}/{part}", f"{later.state_dir}/{part}")
    shutil.copytree(f"{alone.registry}/snapshots", f"{later.registry}/snapshots")
    shutil.copy(f"{alone.registry}/registry.json", later.registry)
    assert run_stream(later, bounded=True, checkpoint=middle).windows == report.windows - middle
    check_same_end(later, alone)


def check_same_end(one: RunConfig, other: RunConfig) -> None:
    """Fail unless the last versions and states of both runs are the same."""
    registries = Registry(one.registry), Registry(other.registry)
    ours, theirs = (registry.versions()[-1] for registry in registries)
    assert ours == theirs
    digests = {registry.manifest(ours).digest for registry in registries}
    assert len(digests) == 1
    snapshots = [registry.latest_snapshot() for registry in registries]
    states = [FeatureState.restore(one.features, s.segments) for s in snapshots if s is not None]
    assert len(states) == 2
    check_same_state(*states)
