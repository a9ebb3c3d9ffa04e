"""Fixtures shared by all rooms."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# speed is measured in benchmarks/, never asserted by a test
settings.register_profile("ray_rec", deadline=None)
settings.load_profile("ray_rec")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays in one process where several share the tests (`make test`).

    The tests of a module do, as they share its fixtures, and those of `serve/`, whose application
    is made once.
    """
    for item in items:
        room = item.path.parent.name
        group = room if room == "serve" else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))


def load_broker() -> Any:
    """Import deploy/kafka/broker.py, which belongs to no package."""
    name = "kafka_broker_process"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "deploy/kafka/broker.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Any]:
    """A running broker (deploy/kafka/broker.py) shared by the session: `.url`, `.kill()`, …

    A test that kills it must bring it back with `restart()`. Without Java or Maven the test is
    skipped, but where CI=true it fails: there Kafka has to be tested.
    """
    module = load_broker()
    if lacks := module.missing():
        text = f"no Kafka broker can be started here: {' and '.join(lacks)} missing"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(f"SKIPPED LOUDLY: {text}")
    with module.Broker() as broker:
        yield broker


@pytest.fixture
def kafka_url(kafka_broker: Any) -> str:
    """URL of the shared broker; topics of earlier tests are still there, so use own names."""
    url: str = kafka_broker.url
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a SQLite log that does not exist yet."""
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout; see their README for what each is good for."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no real data at {path.name}/ beside the checkout")
    return path
