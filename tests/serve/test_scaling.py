"""Each deployment grows under load and shrinks again, without a failed request."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from serve.app import AppArgs, build
from tests.serve.running import Running, eventually
from tests.serving import builders

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:The `metrics_interval_s`:DeprecationWarning"),
]

APP = "scaling"
FAST = {
    "num_cpus": 0.1,
    "max_replicas": 2,
    "target_ongoing_requests": 1,
    "upscale_delay_s": 0.2,
    "downscale_delay_s": 0.5,
    "look_back_period_s": 1.0,
    "metrics_interval_s": 0.2,
}


@pytest.fixture(scope="module")
def scaling(app: Running) -> Iterator[str]:
    """A second application over the same log and registry, one that scales at once."""
    from ray import serve as ray_serve

    args = AppArgs(
        log=app.log.url, registry=app.registry.url, recommender_scaling=FAST, encoder_scaling=FAST
    )
    ray_serve.run(build(args), name=APP, route_prefix=f"/{APP}")
    yield f"{app.url}/{APP}"
    ray_serve.delete(APP)


def running(deployment: str) -> int:
    from ray import serve as ray_serve

    states = ray_serve.status().applications[APP].deployments[deployment].replica_states
    return states.get("RUNNING", 0)


@contextmanager
def load(request: Callable[[], Any], workers: int) -> Iterator[list[Any]]:
    """Keep `workers` requests under way; all answers, or the first failure at the end."""
    stop = threading.Event()
    answers: list[Any] = []

    def work() -> None:
        while not stop.is_set():
            answers.append(request())

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work) for _ in range(workers)]
        try:
            yield answers
        finally:
            stop.set()
        for future in futures:
            future.result()


def test_the_recommender_scales_and_new_replicas_start_from_the_snapshot(
    app: Running, scaling: str, publish: Callable[[], int]
) -> None:
    assert running("Recommender") == 1
    number = publish()  # with a newer snapshot of the state

    def ask(client: httpx.Client) -> int:
        body = {"user_id": "u1", "num": 40, "details": True, "explain": True}
        response = client.post(f"{scaling}/v1/recommendations", json=body)
        assert response.status_code == 200, response.text
        return response.status_code

    with httpx.Client(timeout=60) as one, httpx.Client(timeout=60) as many:

        def ready() -> dict[str, Any]:
            seen: dict[str, Any] = one.get(f"{scaling}/readyz").json()
            return seen

        first = ready()
        replicas: dict[int, dict[str, Any]] = {}

        def both_answer() -> bool:
            seen = ready()
            replicas[seen["started_at"]] = seen
            return len(replicas) == 2

        with load(lambda: ask(one), 1):
            with load(lambda: ask(many), 7):
                eventually(lambda: running("Recommender") == 2, 90)
                eventually(both_answer, 30)
            eventually(lambda: running("Recommender") == 1, 90)
    del replicas[first["started_at"]]
    (second,) = replicas.values()
    assert second["snapshot"] == number
    assert second["ready"]


def test_the_encoder_scales(app: Running, scaling: str) -> None:
    from ray import serve as ray_serve

    digest = builders.minilm().digest
    texts = [f"{n} bags of first flush darjeeling" for n in range(64)]
    stop = threading.Event()
    shapes: set[tuple[int, ...]] = set()

    async def encode(handle: Any) -> None:
        while not stop.is_set():
            shapes.add((await handle.remote(texts, digest)).shape)

    async def six() -> None:
        handle = ray_serve.get_deployment_handle("Encoder", app_name=APP)
        await asyncio.gather(*(encode(handle) for _ in range(6)))

    assert running("Encoder") == 1
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(asyncio.run, six())
        try:
            eventually(lambda: running("Encoder") == 2, 90)
        finally:
            stop.set()
        load.result()
    eventually(lambda: running("Encoder") == 1, 90)
    assert shapes == {(64, 384)}
