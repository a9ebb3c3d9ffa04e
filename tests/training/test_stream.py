"""The stream on a real Ray cluster: it learns every window once, goes on, and splits alike."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig
from ray_rec.log.base import open_log
from ray_rec.registry import Registry
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.stream import run_stream
from tests.training.shop import fill_visits

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., RunConfig]


def copy_plans(source: RunConfig, target: RunConfig) -> None:
    """Let `target` learn the very windows of `source`."""
    shutil.copytree(f"{source.state_dir}/plans", f"{target.state_dir}/plans")


def test_a_bounded_run_learns_the_log_and_the_next_one_goes_on(make_config: MakeConfig) -> None:
    config = make_config()
    first = run_stream(config, bounded=True)
    assert first.windows == first.version
    assert first.records == 48 + 200 + 200
    registry = Registry(config.registry)
    with open_log(config.log) as log:
        latest = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
        assert registry.manifest(first.version or 0).offsets == latest
        fill_visits(log, 50, first=200)

    second = run_stream(config, bounded=True)
    assert second.records == 100
    assert second.version == (first.version or 0) + second.windows
    manifest = registry.manifest(second.version)
    assert manifest.parent is not None
    assert manifest.config["model"]["dim"] == 16
    assert registry.latest_snapshot() is not None
    assert registry.latest_snapshot().number == second.version


def test_two_workers_learn_what_one_learns(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = ("model.dropout=0", "learner.optimizer=sgd", "training.gate_margin=100")
    one = make_config("one", *plain)
    two = make_config("two", *plain, "training.num_workers=2", "training.cpus_per_worker=0.4")
    first = run_stream(one, bounded=True)
    copy_plans(one, two)
    second = run_stream(two, bounded=True)
    assert first.version == second.version
    assert first.version is not None
    ones = Registry(one.registry).load(first.version)
    twos = Registry(two.registry).load(first.version)
    assert ones.rows == twos.rows
    for name, tensor in ones.tensors.items():
        torch.testing.assert_close(tensor, twos.tensors[name], atol=1e-6, rtol=0, msg=name)


def test_the_same_plans_give_the_same_version_bit_for_bit(make_config: MakeConfig) -> None:
    one, again = make_config("one"), make_config("again")
    first = run_stream(one, bounded=True)
    with open_log(one.log) as log:
        fill_visits(log, 50, first=200)
    second = run_stream(again, plans=f"{one.state_dir}/plans")
    assert second.records == first.records
    assert first.version == second.version
    assert first.version is not None
    ones = Registry(one.registry).load(first.version)
    agains = Registry(again.registry).load(first.version)
    for name, tensor in ones.tensors.items():
        assert torch.equal(tensor, agains.tensors[name]), name
