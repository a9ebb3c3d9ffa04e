"""One Ray cluster and one application for all tests of this room."""

import os
from collections.abc import Callable, Iterator

import httpx
import pytest

from ray_rec.log import open_log
from ray_rec.registry import Registry
from serve import launch
from tests.serve.running import Running
from tests.serving import builders, shop


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """A local cluster of two CPUs with HAProxy where it is installed."""
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(launch.environment())
    # of two processes that share the tests the other may keep the machine busy; 5 s is Serve's own
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    import ray  # after its environment is set

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        launch.stop()
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="package")
def app(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The application with a first version, state snapshot and all."""
    folder = tmp_path_factory.mktemp("shop")
    log = open_log(f"sqlite:///{folder}/log.db")
    shop.fill(log)
    registry = Registry(str(folder / "registry"), create=True)
    builders.publish(log, registry, 1, builders.minilm())
    port = builders.free_port()
    args = {
        "log": log.url,
        "registry": str(folder / "registry"),
        "serving": {"policy": "epsilon-greedy", "epsilon": 0.2, "registry_poll_s": 0.2},
        "recommender_scaling": {"num_cpus": 0.2, "max_replicas": 1},
        "encoder_scaling": {"num_cpus": 0.2, "max_replicas": 1},
    }
    url = launch.start(args, port=port)
    with httpx.Client(base_url=url, timeout=30) as client, log:
        yield Running(url, client, log, registry)


@pytest.fixture
def publish(app: Running) -> Callable[[], int]:
    """Publish another version of the shop's model; returns its number."""

    def publish() -> int:
        number = app.registry.versions()[-1] + 1
        builders.publish(app.log, app.registry, number, builders.minilm())
        return number

    return publish
