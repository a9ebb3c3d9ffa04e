"""Whatever is sent, by the published schema or against it, is answered without a server error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_rec.log import open_log
from ray_rec.registry import Registry
from ray_rec.serving.replica import Replica
from serve.http import create_app
from tests.serving import builders, shop

schemathesis = pytest.importorskip("schemathesis", reason="pip install -e '.[dev]'")

ENDPOINTS = (
    ("POST", "/v1/recommendations"),
    ("POST", "/v1/events"),
    ("PUT", "/v1/items"),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    words = builders.Words()
    with open_log(f"sqlite:///{folder}/log.db") as log:
        shop.fill(log)
        registry = Registry(str(folder / "registry"), create=True)
        builders.publish(log, registry, 1, words)
        replica = Replica(log, registry, encode=lambda texts, _: words.encode(texts)).start(20.0)
        yield create_app(lambda: replica)
        replica.close()


def statuses(operation: Any) -> set[int]:
    """Send 15 requests that an operation's schema allows."""
    seen: set[int] = set()

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        seen.add(case.call().status_code)

    send()
    return seen


def test_requests_by_the_schema(app: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [operation.ok() for operation in schema.get_all_operations()]
    answered = {operation.label: statuses(operation) for operation in operations}
    assert len(answered) == 11
    assert max(status for seen in answered.values() for status in seen) < 500
    assert 200 in answered["POST /v1/recommendations"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
FIELDS = ("user_id", "num", "context", "exclude", "ts", "events", "item_id", "title", "price")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON | st.binary(max_size=40),
)
def test_requests_against_it(app: FastAPI, endpoint: tuple[str, str], body: Any) -> None:
    client = TestClient(app)
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = client.request(*endpoint, **sent)
    assert response.status_code < 500
    if response.status_code >= 400:
        problems = response.json().get("errors") or response.json()["rejected"]
        assert all({"field", "reason"} <= problem.keys() for problem in problems)
