"""A driver killed with SIGKILL: the next one continues as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig
from ray_rec.registry import Registry
from tests.conftest import ROOT
from tests.training.shop import flags
from tests.waiting import until

pytestmark = pytest.mark.ray

DEADLINE_S = 240


def job(config: RunConfig) -> subprocess.Popen[bytes]:
    """Start `jobs/stream.py` to the log's present end, with a Ray cluster of its own."""
    command = [sys.executable, "-m", "jobs.stream", "--until-end", *flags(config)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def serves(config: RunConfig, version: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether the running job has brought at least `version` into service."""
    assert process.poll() is None, "the job ended before it was killed"
    if not (Path(config.registry) / "registry.json").exists():
        return False
    current = Registry(config.registry).current()
    return current is not None and current.version >= version


def test_a_killed_run_continues_to_the_same_weights(make_config: Callable[..., RunConfig]) -> None:
    killed = make_config("killed", "training.window_records=50", "training.gate_margin=100")
    process = job(killed)
    until(lambda: serves(killed, 3, process), DEADLINE_S, pause_s=0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped_at = Registry(killed.registry).current()
    assert stopped_at is not None
    assert job(killed).wait(DEADLINE_S) == 0

    calm = make_config("calm", "training.window_records=50", "training.gate_margin=100")
    shutil.copytree(f"{killed.state_dir}/plans", f"{calm.state_dir}/plans")
    assert job(calm).wait(DEADLINE_S) == 0

    ended = Registry(killed.registry).current()
    assert ended is not None
    assert ended.version > stopped_at.version
    for version in Registry(calm.registry).versions():
        left = Registry(killed.registry).load(version)
        right = Registry(calm.registry).load(version)
        assert left.manifest.offsets == right.manifest.offsets
        assert left.rows == right.rows
        for name, tensor in right.tensors.items():
            assert torch.equal(tensor, left.tensors[name]), f"{name} of version {version}"
