"""Recommendations a second through Ray Serve, beside the same engine behind bare uvicorn.

    python -m benchmarks.serving [--quick]

Both serve the same 10,000 items, state and version, one replica with one thread; the load is a
closed loop of 1, 16 and 64 connections. The two take turns, so a busy machine slows both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch

from benchmarks._results import finish
from benchmarks.load import Load, post_load
from ray_rec.config import RunConfig, build
from ray_rec.events import EVENTS, ITEMS, Event, Item, Record, decode, encode, key_of
from ray_rec.features.state import FeatureState
from ray_rec.log import EventLog, Window, create_standard_topics, open_log
from ray_rec.registry import Draft, Registry
from ray_rec.serving.replica import Replica
from ray_rec.training.learner import Learner
from ray_rec.training.stream import connect
from serve import launch

HOST = "127.0.0.1"
CONCURRENCY = (1, 16, 64)
NUM_ITEMS, NUM_USERS, EVENTS_EACH = 10_000, 1_000, 30
SERVE_PORT, UVICORN_PORT = 8181, 8182


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run of a minute or two")
    parser.add_argument("--uvicorn", metavar="CONFIG", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.uvicorn:
        serve_bare(build(RunConfig, msgspec.json.decode(arguments.uvicorn)))
        return
    seconds, rounds = (3.0, 2) if arguments.quick else (10.0, 3)
    with tempfile.TemporaryDirectory(prefix="ray-rec-serving-") as folder:
        config = RunConfig(log=f"sqlite:///{folder}/log.db", registry=f"{folder}/registry")
        make_version(config)
        with _bare(config), _served(config):
            loads = measure(seconds, rounds)
    config_kept = {
        "items": NUM_ITEMS,
        "users": NUM_USERS,
        "events_each": EVENTS_EACH,
        "seconds": seconds,
        "rounds": rounds,
        "num": 10,
        "dim": config.model.dim,
        "pool": config.serving.pool,
    }
    finish("serving", result_of(loads), config_kept, arguments.quick)


def measure(seconds: float, rounds: int) -> dict[tuple[str, int], list[Load]]:
    """Load both in turns; returns the runs by who answered and concurrency."""
    bodies = [msgspec.json.encode({"user_id": f"u{n}"}) for n in range(NUM_USERS)]
    loads: dict[tuple[str, int], list[Load]] = {}
    for round_ in range(rounds + 1):
        for concurrency in CONCURRENCY:
            for name, port in (("serve", SERVE_PORT), ("uvicorn", UVICORN_PORT)):
                spent = seconds if round_ else 1.0  # the first round warms both up
                path = "/v1/recommendations"
                load = post_load(HOST, port, path, bodies, concurrency, spent)
                if load.failed:
                    raise SystemExit(f"{load.failed} of {load.requests} requests failed ({name})")
                if round_:
                    loads.setdefault((name, concurrency), []).append(load)
    return loads


def result_of(loads: dict[tuple[str, int], list[Load]]) -> dict[str, Any]:
    """Return medians over the rounds: rps, p50_ms, p99_ms by concurrency, and the ratios."""

    def medians(name: str, field: str) -> dict[str, float]:
        return {
            str(c): round(float(np.median([asdict(load)[field] for load in loads[name, c]])), 3)
            for c in CONCURRENCY
        }

    result: dict[str, Any] = {}
    for field in ("rps", "p50_ms", "p99_ms"):
        result[field] = medians("serve", field)
        result[f"uvicorn_{field}"] = medians("uvicorn", field)
    result["ratio_uvicorn"] = {
        c: round(rps / result["uvicorn_rps"][c], 3) for c, rps in result["rps"].items()
    }
    return result


def make_version(config: RunConfig) -> None:
    """Write a shop to the log, and publish a version with random weights and its state."""
    generator = np.random.default_rng(0)
    with open_log(config.log) as log:
        create_standard_topics(log, 4)
        items = [
            Item(item_id=f"i{n}", title=f"item {n}", category=f"c{n % 50}", price=1.0, ts=1)
            for n in range(NUM_ITEMS)
        ]
        log.append(ITEMS, [Record(key_of(ITEMS, item), encode(item), 1) for item in items])
        log.append(EVENTS, _events(generator))
        state, window = FeatureState(config.features), _whole(log)
        examples = state.apply(window, _decoded(log, window))
    learner = Learner(config.model, config.learner)
    learner.observe(examples.items, generator.normal(size=(NUM_ITEMS, 384)).astype(np.float32))
    registry = Registry(config.registry, create=True)
    draft = Draft(None, (0, 0), state.offsets, config.to_dict(), encoder="random")
    rows = [str(item_id) for item_id in state.catalogue.item_id]
    registry.publish(1, learner.export(), rows, draft)
    registry.publish_snapshot(1, state.snapshot(), state.offsets)


def _events(generator: np.random.Generator) -> list[Record]:
    now = time.time_ns() // 1_000_000
    bought = generator.zipf(1.3, (NUM_USERS, EVENTS_EACH)) % NUM_ITEMS
    events = [
        Event(
            event_id=f"{user}-{n}",
            user_id=f"u{user}",
            item_id=f"i{item}",
            event_type="purchase",
            ts=now - 3_600_000 * (EVENTS_EACH - n),
        )
        for n in range(EVENTS_EACH)
        for user, item in enumerate(bought[:, n].tolist())
    ]
    return [Record(key_of(EVENTS, event), encode(event), event.ts) for event in events]


def _whole(log: EventLog) -> Window:
    topics = (ITEMS, EVENTS)
    return Window(0, {t: {p: (0, end) for p, end in log.latest(t).items()} for t in topics})


def _decoded(log: EventLog, window: Window) -> dict[str, Any]:
    return {
        topic: decode(topic, pa.concat_tables(log.read(topic, ranges))).table
        for topic, ranges in window.ranges.items()
    }


@contextmanager
def _served(config: RunConfig) -> Iterator[None]:
    os.environ.update(launch.environment())
    connect(num_cpus=2)
    try:
        args = config.to_dict() | {"recommender_scaling": {"max_replicas": 1}}
        args["encoder_scaling"] = {"max_replicas": 1, "num_cpus": 0.1}
        launch.start(args, HOST, SERVE_PORT)
        yield
    finally:
        launch.stop()


@contextmanager
def _bare(config: RunConfig) -> Iterator[None]:
    """Run the same application behind uvicorn, in a process of its own."""
    launch.check_port(HOST, UVICORN_PORT)
    text = msgspec.json.encode(config.to_dict()).decode()
    command = [sys.executable, "-m", "benchmarks.serving", "--uvicorn", text]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent)
    try:
        _wait_until_ready(process)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://{HOST}:{UVICORN_PORT}/readyz", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the application did not become ready behind uvicorn")


def serve_bare(config: RunConfig) -> None:
    """Serve one replica with uvicorn alone, until terminated."""
    import uvicorn

    from serve.http import create_app

    torch.set_num_threads(1)
    with open_log(config.log) as log:
        replica = Replica(log, Registry(config.registry), config.features, config.serving)
        replica.start(30.0)
        app = create_app(lambda: replica)
        uvicorn.run(app, host=HOST, port=UVICORN_PORT, log_level="warning", access_log=False)
        replica.close()


if __name__ == "__main__":
    main()
