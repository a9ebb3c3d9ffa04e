"""Jobs submitted from outside to a running Ray cluster, with its token, over a real Kafka log."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ray_rec.config import load_config
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.registry import Registry
from tests.conftest import ROOT
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits, flags

pytestmark = [pytest.mark.ray, pytest.mark.kafka]

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A head node of its own; `environment` lets a client in."""

    address: str
    environment: dict[str, str]

    def submit(self, *entrypoint: str) -> None:
        """Submit a job as a user would, and wait for its success."""
        done = self.attempt(*entrypoint)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

    def attempt(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Submit a job and wait for its end."""
        runtime_env = {
            "working_dir": str(ROOT),
            "env_vars": {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        }
        return subprocess.run(
            [
                BIN / "ray",
                "job",
                "submit",
                "--address",
                self.address,
                "--runtime-env-json",
                json.dumps(runtime_env),
                "--",
                *entrypoint,
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    }
    port = free_port()
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}"]
    sessions = tempfile.mkdtemp(prefix="ray-")  # unix sockets need short paths
    command += [f"--dashboard-port={port}", "--include-dashboard=true", f"--temp-dir={sessions}"]
    command += ["--dashboard-agent-listen-port=0"]  # other clusters may have taken the default
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    made = Cluster(f"http://127.0.0.1:{port}", environment)
    try:
        # the job server answers before the agent that runs jobs has come up
        deadline = time.monotonic() + 240
        while (done := made.attempt("true")).returncode and head.poll() is None:
            assert time.monotonic() < deadline, done.stdout + done.stderr
        assert head.poll() is None, (folder / "head.log").read_text()
        yield made
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(sessions, ignore_errors=True)


@pytest.fixture
def own_kafka_url(kafka_broker: Any) -> Iterator[str]:
    """A broker whose standard topics nobody else uses."""
    with type(kafka_broker)() as broker:
        yield broker.url


def test_finetune_stream_and_backtest_run_as_submitted_jobs(
    cluster: Cluster, own_kafka_url: str, tmp_path: Path
) -> None:
    places = (
        f"log={own_kafka_url}",
        f"registry={tmp_path}/registry",
        f"state_dir={tmp_path}/state",
    )
    config = load_config(None, (*SMALL, *places), environ={})
    with open_log(own_kafka_url) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        fill_visits(log, 200)
        cluster.submit("python", "-m", "jobs.finetune", *flags(config))
        registry = Registry(config.registry)
        tuned = registry.current()
        assert tuned is not None
        assert registry.manifest(tuned.version).offsets["events"] == log.latest("events")

        fill_visits(log, 100, first=200)
        cluster.submit("python", "-m", "jobs.stream", "--until-end", *flags(config))
        streamed = registry.current()
        assert streamed is not None
        assert streamed.version > tuned.version
        assert registry.manifest(streamed.version).offsets["events"] == log.latest("events")

    out = tmp_path / "backtest"
    cluster.submit("python", "-m", "jobs.backtest", "--out", str(out), *flags(config))
    assert (out / "backtest.html").stat().st_size > 1000
    report = json.loads((out / "backtest.json").read_text())
    assert report
