"""How soon a posted event counts: in the next answer, and in the weights that give it.

    python -m benchmarks.freshness [--quick] [--rate 200]

The last two weeks of Complete Journey are learned and served on this machine; then batches of 50
events are posted at a steady rate while probes measure, one after the other:
`answer_s`: from posting a shopper's purchase to an answer that differs from the one before;
`weights_s`: from posting an event to a version in service whose offsets cover it.
"""

import argparse
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import numpy as np

from benchmarks._results import finish
from ray_rec.config import RunConfig, load_config
from ray_rec.datasets import complete_journey
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.training.stream import connect, run_stream
from serve import launch

BATCH = 50
PORT = 8123
_SHARE = {"num_cpus": 0.2}
TIMEOUT_S = 60.0


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run of a minute or two")
    parser.add_argument("--rate", type=float, default=200.0, help="background events per second")
    arguments = parser.parse_args()
    probes, weeks = (30, (53, 53)) if arguments.quick else (200, (52, 53))
    with tempfile.TemporaryDirectory(prefix="ray-rec-freshness-") as folder:
        config = _config(folder)
        with _running(config, weeks) as url, open_log(config.log) as log:
            with _background(url, arguments.rate):
                answers = [_answer_s(url, probe) for probe in range(probes)]
                weights = [_weights_s(url, log, probe) for probe in range(probes)]
            model = httpx.get(f"{url}/v1/model").json()
    result = {
        "answer_s_p50": float(np.quantile(answers, 0.5)),
        "answer_s_p99": float(np.quantile(answers, 0.99)),
        "weights_s_p50": float(np.quantile(weights, 0.5)),
        "weights_s_p99": float(np.quantile(weights, 0.99)),
    }
    details = {
        "rate_per_s": arguments.rate,
        "probes": probes,
        "num_items": model["num_items"],
        "history_length": config.features.history_length,
        "answers_s": answers,
        "weights_s": weights,
    }
    finish("freshness", result, config=config.to_dict() | details, quick=arguments.quick)


def _config(folder: str) -> RunConfig:
    places = (
        f"log=sqlite:///{folder}/log.db",
        f"registry={folder}/registry",
        f"state_dir={folder}/state",
    )
    return load_config(None, (*places, *complete_journey.OVERRIDES), environ={})


@contextmanager
def _running(config: RunConfig, weeks: tuple[int, int]) -> Iterator[str]:
    """Load, learn and serve; gives the URL once a version that knows the data answers."""
    os.environ.update(launch.environment())
    with open_log(config.log) as log:
        create_standard_topics(log, config.partitions)
        complete_journey.load(log, weeks, end_ms=int(time.time() * 1000))
    connect()
    stop = threading.Event()
    stream = threading.Thread(target=run_stream, args=(config,), kwargs={"stop": stop})
    stream.start()
    try:
        shares = {"recommender_scaling": _SHARE, "encoder_scaling": _SHARE}
        url = launch.start({**config.to_dict(), **shares}, port=PORT)
        with open_log(config.log) as log:
            _wait_until_learned(url, log.latest(EVENTS))
        yield url
    finally:
        stop.set()
        stream.join()
        launch.stop()


@contextmanager
def _background(url: str, rate: float) -> Iterator[None]:
    """Post batches of 50 events a `BATCH / rate` seconds apart, until the end of the block."""
    done = threading.Event()

    def post() -> None:
        rng, started = random.Random(0), time.monotonic()
        users = httpx.get(f"{url}/v1/users", params={"num": 100}).json()["users"]
        with httpx.Client(base_url=url) as client:
            for batch in itertools.count():
                if done.wait(max(0.0, started + batch * BATCH / rate - time.monotonic())):
                    return
                people = [str(rng.choice(users)) for _ in range(BATCH)]
                _post(client, [(user, str(rng.randrange(1, 10**6))) for user in people])

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


_numbers = itertools.count()


def _post(client: httpx.Client, bought: list[tuple[str, str]]) -> None:
    now = int(time.time() * 1000)
    events = [
        {
            "event_id": f"freshness-{next(_numbers)}",
            "user_id": user,
            "item_id": item,
            "event_type": "purchase",
            "ts": now,
        }
        for user, item in bought
    ]
    client.post("/v1/events", json={"events": events}).raise_for_status()


def _answer_s(url: str, probe: int) -> float:
    """Seconds from posting one purchase of a new shopper to a different answer."""
    user = f"probe-{probe}"
    with httpx.Client(base_url=url) as client:
        before = _items(client, user)
        started = time.perf_counter()
        _post(client, [(user, before[-1])])
        return _until(lambda: _items(client, user) != before, started)


def _weights_s(url: str, log: EventLog, probe: int) -> float:
    """Seconds from posting an event to a version in service that has learned it."""
    with httpx.Client(base_url=url) as client:
        item = _items(client, f"probe-{probe}")[0]
        started = time.perf_counter()
        _post(client, [(f"probe-{probe}", item)])
        written = log.latest(EVENTS)
        return _until(lambda: _covers(client, written), started)


def _items(client: httpx.Client, user: str) -> list[str]:
    answer = client.post("/v1/recommendations", json={"user_id": user}).raise_for_status()
    return [item["item_id"] for item in answer.json()["items"]]


def _covers(client: httpx.Client, written: dict[int, int]) -> bool:
    learned = client.get("/v1/model").json()["offsets"].get(EVENTS, {})
    return all(learned.get(str(p), 0) >= end for p, end in written.items())


def _wait_until_learned(url: str, written: dict[int, int]) -> None:
    deadline = time.monotonic() + 600
    with httpx.Client(base_url=url, timeout=10) as client:
        while client.get("/readyz").status_code != httpx.codes.OK or not _covers(client, written):
            if time.monotonic() > deadline:
                raise TimeoutError("the data was not learned within 600 s")
            time.sleep(0.2)


def _until(holds: Callable[[], bool], started: float) -> float:
    """Seconds from `started` until `holds`, asked without a pause."""
    while not holds():
        if time.perf_counter() - started > TIMEOUT_S:
            raise TimeoutError(f"nothing changed within {TIMEOUT_S:.0f} s")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
