"""A stream that diverges, is continued by other hands, or replays: all on a real Ray cluster."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig
from ray_rec.registry import Registry, Version
from ray_rec.training.checkpoint import Checkpoints
from ray_rec.training.plans import PlanStore
from ray_rec.training.stream import StreamReport, run_stream

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., RunConfig]
EXACT = ("learner.dtype=float64", "model.dropout=0", "training.gate_margin=100")


def last_version(config: RunConfig, report: StreamReport) -> Version:
    assert report.version is not None
    return Registry(config.registry).load(report.version)


def assert_close(one: Version, other: Version, atol: float) -> None:
    assert one.rows == other.rows
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(
            tensor, other.tensors[name], atol=atol, rtol=0, equal_nan=True, msg=name
        )


def copy_plans(source: RunConfig, target: RunConfig) -> None:
    shutil.copytree(f"{source.state_dir}/plans", f"{target.state_dir}/plans")


def test_a_window_that_diverges_is_tried_milder_then_set_aside(make_config: MakeConfig) -> None:
    """From step 10 on every loss counts as exploded: only the first windows are learned."""
    strict = ("learner.explode_factor=0.001", "learner.explode_patience=10")
    config = make_config("strict", *strict, *EXACT, "training.window_records=100")
    told: list[dict[str, float]] = []
    report = run_stream(config, bounded=True, on_metrics=told.append)
    plans = PlanStore(f"{config.state_dir}/plans")
    windows = [window for n in plans.numbers() if (window := plans.get(n)) is not None]
    aside = [window.number for window in windows if window.set_aside]
    assert aside
    assert all(window.rate_scale == 0.1 for window in windows if window.set_aside)
    assert aside[0] > 0, "the first windows are learned"
    set_aside = {int(m["window"]): m["set_aside"] for m in told if "set_aside" in m}
    assert sorted(set_aside) == aside
    assert all(m["examples"] == set_aside[int(m["window"])] for m in told if "set_aside" in m)

    calm = make_config("calm", *EXACT)
    copy_plans(config, calm)
    repeated = run_stream(calm, bounded=True)
    assert_close(last_version(config, report), last_version(calm, repeated), atol=0)


def test_another_number_of_workers_goes_on_where_one_stopped(make_config: MakeConfig) -> None:
    alone = make_config("alone", *EXACT, "training.checkpoint_interval_s=0")
    first = run_stream(alone, bounded=True)
    middle = Checkpoints.of(alone).numbers()[0]
    assert 0 < middle < first.windows

    two = make_config("two", *EXACT, "training.num_workers=2", "training.cpus_per_worker=0.4")
    for part in ("plans", "checkpoints"):
        shutil.copytree(f"{alone.state_dir}/{part}", f"{two.state_dir}/{part}")
    shutil.copytree(f"{alone.registry}/snapshots", f"{two.registry}/snapshots")
    shutil.copy(f"{alone.registry}/registry.json", two.registry)
    second = run_stream(two, bounded=True, checkpoint=middle)
    assert second.windows == first.windows - middle
    assert_close(last_version(alone, first), last_version(two, second), atol=1e-12)


def test_two_workers_go_on_in_the_pass_where_one_stopped_early(make_config: MakeConfig) -> None:
    """The second pass is worse, so passes end with it; what the first gave is in the checkpoint."""
    passes = ("training.passes=3", "training.max_window_records=300", "training.patience=1")
    kept = ("training.checkpoint_interval_s=0", "training.keep_checkpoints=3", "learner.lr=0.02")
    alone = make_config("alone", *EXACT, *passes, *kept)
    told: list[dict[str, float]] = []
    first = run_stream(alone, bounded=True, on_metrics=told.append)
    assert first.records == 48 + 200 + 200
    # each pass is two windows, and an empty one makes the version
    assert [m["pass"] for m in told if m["pass"]] == [1, 1, 2, 2, 2]
    best, worse = (m["validation_loss"] for m in told if "validation_loss" in m)
    assert best < worse
    middle = Checkpoints.of(alone).numbers()[0]
    assert middle == first.windows - 2, "before the last window of the second pass"

    spread = ("training.num_workers=2", "training.cpus_per_worker=0.4")
    two = make_config("two", *EXACT, *kept, *spread)
    for part in ("plans", "checkpoints", "examples"):
        shutil.copytree(f"{alone.state_dir}/{part}", f"{two.state_dir}/{part}")
    shutil.copytree(f"{alone.registry}/snapshots", f"{two.registry}/snapshots")
    shutil.copy(f"{alone.registry}/registry.json", two.registry)
    second = run_stream(two, bounded=True, checkpoint=middle)
    assert second.windows == 2
    assert_close(last_version(alone, first), last_version(two, second), atol=1e-12)


def test_replayed_windows_are_learned_the_same_again(make_config: MakeConfig) -> None:
    replaying = ("training.replay_windows=2", "training.replay_ratio=0.5")
    config = make_config("replaying", *EXACT, *replaying)
    told: list[dict[str, float]] = []
    first = run_stream(config, bounded=True, on_metrics=told.append)
    replayed = sum(m["replayed"] for m in told)
    assert 0 < replayed <= sum(m["examples"] for m in told) / 3

    two = make_config("two", *EXACT, *replaying, "training.num_workers=2")
    copy_plans(config, two)
    second = run_stream(two, bounded=True)
    assert_close(last_version(config, first), last_version(two, second), atol=1e-12)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(make_config: MakeConfig) -> None:
    config = make_config("damaged", *EXACT, "training.checkpoint_interval_s=0")
    first = run_stream(config, bounded=True)
    numbers = Checkpoints.of(config).numbers()
    newest = Path(config.state_dir) / "checkpoints" / f"{numbers[-1]:012d}" / "learner.safetensors"
    newest.write_bytes(b"nothing")
    second = run_stream(config, bounded=True)
    assert second.version == first.version
    assert second.windows == numbers[-1] - numbers[-2]
