"""A driver killed with SIGKILL: the next one continues as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from ray_rec.config import RunConfig
from ray_rec.registry import Registry
from tests.conftest import ROOT

pytestmark = pytest.mark.ray

DEADLINE_S = 240


def job(config: RunConfig, folder: Path) -> subprocess.Popen[bytes]:
    """Start `jobs/stream.py` to the log's present end, with a Ray cluster of its own."""
    path = folder / "run.json"
    path.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "jobs.stream", "--until-end", "--config", str(path)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def wait_for_version(config: RunConfig, version: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    marker = Path(config.registry) / "registry.json"
    while time.monotonic() < deadline:
        if marker.exists():
            current = Registry(config.registry).current()
            if current is not None and current.version >= version:
                return
        assert process.poll() is None, "the job ended before it was killed"
        time.sleep(0.01)
    pytest.fail(f"no version {version} within {DEADLINE_S} s")


def test_a_killed_run_continues_to_the_same_weights(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    killed = make_config("killed", "training.window_records=50", "training.gate_margin=100")
    process = job(killed, tmp_path)
    wait_for_version(killed, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped_at = Registry(killed.registry).current()
    assert stopped_at is not None
    assert job(killed, tmp_path).wait(DEADLINE_S) == 0

    calm = make_config("calm", "training.window_records=50", "training.gate_margin=100")
    shutil.copytree(f"{killed.state_dir}/plans", f"{calm.state_dir}/plans")
    assert job(calm, tmp_path).wait(DEADLINE_S) == 0

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
