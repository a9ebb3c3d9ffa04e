"""What a request says of its moment, over HTTP: the item on the page, words, a category."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ray_rec.log import open_log
from ray_rec.registry import Registry
from ray_rec.serving.replica import Replica
from serve.http import create_app
from tests.serving import builders, shop


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("context")
    words = builders.Words()
    with open_log(f"sqlite:///{folder}/log.db") as log:
        shop.fill(log)
        registry = Registry(str(folder / "registry"), create=True)
        builders.publish(log, registry, 1, words)
        replica = Replica(log, registry, encode=lambda texts, _: words.encode(texts)).start(20.0)
        with TestClient(create_app(lambda: replica)) as client:
            yield client
        replica.close()


def text_parts(http: TestClient, **context: Any) -> dict[str, float]:
    """Ask for somebody without a past; return what each item's text adds to its score."""
    body = {"user_id": "stranger", "num": 48, "explain": True, "context": context}
    response = http.post("/v1/recommendations", json=body)
    assert response.status_code == 200, response.text
    return {item["item_id"]: item["explain"]["recall.text"] for item in response.json()["items"]}


def best(parts: dict[str, float], num: int) -> set[str]:
    return set(sorted(parts, key=lambda item: -parts[item])[:num])


def test_a_stranger_is_answered_by_what_the_request_says(http: TestClient) -> None:
    assert set(text_parts(http, page="home").values()) == {0.0}
    looked = text_parts(http, page="item", item_id="tea-1")
    assert "tea-1" not in looked
    assert best(looked, 2) == {"tea-5", "tea-9"}  # green leaves of the other makers
    sought = text_parts(http, query="rose seeds garden")
    assert best(sought, 3) == {"garden-3", "garden-7", "garden-11"}
    both = text_parts(http, query="rose seeds garden", category="tea")
    assert {item.partition("-")[0] for item in both} == {"tea"}
    assert text_parts(http, query="", item_id=None) == text_parts(http)
    assert http.get("/v1/users/stranger/history").json()["events"] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("query", "x" * 1001),
        ("query", 3),
        ("item_id", ["i"]),
        ("category", 3),
        ("placement", "x" * 65),
    ],
)
def test_what_is_no_text_is_named(http: TestClient, key: str, value: object) -> None:
    response = http.post(
        "/v1/recommendations", json={"user_id": "stranger", "context": {key: value}}
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == f"context.{key}"
