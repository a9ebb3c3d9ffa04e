"""How soon a posted event counts: in the next answer, and in the weights that give it.

    python -m benchmarks.freshness [--quick] [--rates 200,50,1000]

The last two weeks of Complete Journey are learned and served on this machine. Then, at each rate,
purchases of an earlier week are posted in batches of 50 while 20 recommendations a second are asked
for, and probes measure, one after the other:
`answer_s`: from posting a shopper's purchase to an answer that differs from the one before;
`weights_s`: from posting an event to a version in service whose offsets cover it.
The first rate gives the headline, all of them the `curve`.
"""

import argparse
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._journey import configure, load
from benchmarks._results import finish
from ray_rec.config import RunConfig
from ray_rec.datasets.complete_journey import data_folder
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import EventLog, open_log
from ray_rec.training.status import status
from ray_rec.training.stream import connect, run_stream
from serve import launch

BATCH = 50
REQUESTS_PER_S = 20.0
PORT = 8123
POSTED_WEEK = 51
_SHARE = {"num_cpus": 0.2, "max_replicas": 1}
TIMEOUT_S = 60.0

Bought = list[tuple[str, str]]
"""(shopper, product) pairs."""


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one rate, a run of two minutes")
    parser.add_argument("--rates", default="200,50,1000", help="posted events per second")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")][: 1 if arguments.quick else None]
    probes = 30 if arguments.quick else 100
    with tempfile.TemporaryDirectory(prefix="ray-rec-freshness-") as folder:
        config = configure(folder)
        with _running(config) as url, open_log(config.log) as log:
            curve = {f"{rate:g}": _measure(config, url, log, rate, probes) for rate in rates}
            model = httpx.get(f"{url}/v1/model").json()
    headline = curve[f"{rates[0]:g}"]
    names = [f"{what}_s_{q}" for what in ("answer", "weights") for q in ("p50", "p99")]
    details = {
        "rates_per_s": rates,
        "probes": probes,
        "requests_per_s": REQUESTS_PER_S,
        "num_items": model["num_items"],
        "history_length": config.features.history_length,
    }
    result = {name: headline[name] for name in names} | {"curve": curve}
    finish("freshness", result, config.to_dict() | details, arguments.quick)


def _measure(
    config: RunConfig, url: str, log: EventLog, rate: float, probes: int
) -> dict[str, float]:
    """Return quantiles of both times under a load, and the backlog at its end."""
    bought = _week(POSTED_WEEK)
    with (
        _every(BATCH / rate, lambda n, client: _post(client, _batch(bought, n)), url),
        _every(1 / REQUESTS_PER_S, lambda n, client: _items(client, bought[n][0]), url),
    ):
        answers = [_answer_s(url, f"probe-{rate:g}-{n}") for n in range(probes)]
        weights = [_weights_s(url, log, f"probe-{rate:g}-{n}") for n in range(probes)]
        backlog = sum(status(config).log.lag[EVENTS].values())
    times = {"answer": answers, "weights": weights}
    quantiles = {
        f"{what}_s_p{q}": round(float(np.quantile(values, q / 100)), 4)
        for what, values in times.items()
        for q in (50, 99)
    }
    return quantiles | {"backlog_events": float(backlog)}


def _week(week: int) -> Bought:
    table = pq.read_table(
        data_folder() / "transactions.parquet", columns=["household_id", "product_id", "week"]
    )
    table = table.filter(pc.field("week") == week)
    people, products = table["household_id"].to_pylist(), table["product_id"].to_pylist()
    return [(str(who), str(what)) for who, what in zip(people, products, strict=True)]


def _batch(bought: Bought, number: int) -> Bought:
    at = number * BATCH % (len(bought) - BATCH)
    return bought[at : at + BATCH]


@contextmanager
def _running(config: RunConfig) -> Iterator[str]:
    """Load, learn and serve; gives the URL once a version that knows the data answers."""
    os.environ.update(launch.environment())
    load(config, (52, 53))
    connect()
    stop, failure = threading.Event(), list[BaseException]()

    def learn() -> None:
        try:
            run_stream(config, stop=stop)
        except BaseException as error:  # raised again by the waiting thread
            failure.append(error)

    stream = threading.Thread(target=learn)
    stream.start()
    try:
        shares = {"recommender_scaling": _SHARE, "encoder_scaling": _SHARE}
        url = launch.start({**config.to_dict(), **shares}, port=PORT)
        with open_log(config.log) as log:
            _wait_until_learned(url, log.latest(EVENTS), failure)
        yield url
    finally:
        stop.set()
        stream.join()
        launch.stop()


@contextmanager
def _every(pause_s: float, act: Callable[[int, httpx.Client], Any], url: str) -> Iterator[None]:
    """Act at a steady pace, beside the block, until its end; a failure is raised there."""
    done, failure = threading.Event(), list[BaseException]()

    def run() -> None:
        started = time.monotonic()
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            for number in itertools.count():
                if done.wait(max(0.0, started + number * pause_s - time.monotonic())):
                    return
                try:
                    act(number, client)
                except httpx.HTTPError as error:
                    failure.append(error)
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failure:
        raise failure[0]


_numbers = itertools.count()


def _post(client: httpx.Client, bought: Bought) -> None:
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


def _answer_s(url: str, user: str) -> float:
    """Seconds from posting one purchase of a new shopper to a different answer."""
    with httpx.Client(base_url=url) as client:
        before = _items(client, user)
        started = time.perf_counter()
        _post(client, [(user, before[-1])])
        return _until(lambda: _items(client, user) != before, started)


def _weights_s(url: str, log: EventLog, user: str) -> float:
    """Seconds from posting an event to a version in service that has learned it."""
    with httpx.Client(base_url=url) as client:
        item = _items(client, user)[0]
        started = time.perf_counter()
        _post(client, [(user, item)])
        written = log.latest(EVENTS)
        return _until(lambda: _covers(client, written), started, pause_s=0.01)


def _items(client: httpx.Client, user: str) -> list[str]:
    answer = client.post("/v1/recommendations", json={"user_id": user}).raise_for_status()
    return [item["item_id"] for item in answer.json()["items"]]


def _covers(client: httpx.Client, written: dict[int, int]) -> bool:
    answer = client.get("/v1/model")
    if answer.status_code != httpx.codes.OK:
        return False
    learned = answer.json()["offsets"].get(EVENTS, {})
    return all(learned.get(str(p), 0) >= end for p, end in written.items())


def _wait_until_learned(url: str, written: dict[int, int], failure: list[BaseException]) -> None:
    deadline = time.monotonic() + 600
    with httpx.Client(base_url=url, timeout=10) as client:
        while not _covers(client, written):
            if failure:
                raise failure[0]
            if time.monotonic() > deadline:
                raise TimeoutError("the data was not learned within 600 s")
            time.sleep(0.2)


def _until(holds: Callable[[], bool], started: float, pause_s: float = 0.0) -> float:
    """Seconds from `started` until `holds`."""
    while not holds():
        if time.perf_counter() - started > TIMEOUT_S:
            raise TimeoutError(f"nothing changed within {TIMEOUT_S:.0f} s")
        time.sleep(pause_s)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
