"""A version of another encoder taken into service over HTTP, while the deployment holds both."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ray_rec.log import open_log
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Registry
from serve.app import AppArgs, build
from tests.model.encoders import make_encoder
from tests.serve.running import Running, eventually
from tests.serving import builders, shop

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:The `metrics_interval_s`:DeprecationWarning"),
]

APP = "encoders"
ONE = {"num_cpus": 0.1, "max_replicas": 1}


@pytest.fixture
def configs(tmp_path: Path) -> tuple[EncoderConfig, EncoderConfig]:
    """Two tiny pretrained encoders, each in a folder."""
    kinds = make_encoder(tmp_path / "a", "bert", seed=1), make_encoder(tmp_path / "b", "gpt2")
    return tuple(EncoderConfig(model=str(folder), max_tokens=8) for folder in kinds)


@pytest.fixture
def changing(
    app: Running, configs: tuple[EncoderConfig, EncoderConfig], tmp_path: Path
) -> Iterator[Running]:
    """An application of its own beside the other, with version 1 by the first encoder."""
    from ray import serve as ray_serve

    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        shop.fill(log)
        registry = Registry(f"{tmp_path}/registry", create=True)
        publish(registry, log, 1, configs[0])
        args = AppArgs(
            log=log.url,
            registry=registry.url,
            serving={"registry_poll_s": 0.1},
            encoder=dataclasses.asdict(configs[0]),
            recommender_scaling=ONE,
            encoder_scaling=ONE,
        )
        ray_serve.run(build(args), name=APP, route_prefix=f"/{APP}")
        url = f"{app.url}/{APP}"
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Running(url, client, log, registry)
        ray_serve.delete(APP)


def publish(registry: Registry, log: Any, number: int, config: EncoderConfig) -> str:
    """Publish a full version as a run with this encoder makes it; return the encoder's digest."""
    encoder = TextEncoder(config)
    version, state = builders.version_of(log, number, encoder)
    named = {**version.manifest.config, "encoder": dataclasses.asdict(config)}
    manifest = dataclasses.replace(version.manifest, config=named)
    builders.put(registry, dataclasses.replace(version, manifest=manifest), state)
    return encoder.digest


def held() -> list[str]:
    from ray import serve as ray_serve

    handle = ray_serve.get_deployment_handle("Encoder", app_name=APP)
    digests: list[str] = handle.digests.remote().result(timeout_s=60)
    return digests


def test_answers_go_over_to_a_version_of_another_encoder_without_a_failure(
    changing: Running, configs: tuple[EncoderConfig, EncoderConfig]
) -> None:
    seen: list[dict[str, Any]] = []

    def ask(client: httpx.Client) -> dict[str, Any]:
        response = client.post("/v1/recommendations", json={"user_id": "u1", "num": 100})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def shown(answer: dict[str, Any]) -> set[str]:
        return {item["item_id"] for item in answer["items"]}

    def closest_to(words: str) -> str:
        """Return the item whose text is likest to a stranger's query, by the serving encoder."""
        context = {"query": words}
        asked = {"user_id": "stranger", "num": 100, "explain": True, "context": context}
        items = changing.http.post("/v1/recommendations", json=asked).json()["items"]
        likeness = {item["item_id"]: item["explain"]["recall.text"] for item in items}
        return max(likeness, key=likeness.__getitem__)

    def put(item_id: str, title: str) -> None:
        item = {"item_id": item_id, "title": title, "category": "tea", "ts": 1}
        assert changing.http.put("/v1/items", json=item).status_code == 202

    changing.registry.rollback(1)
    encoder = publish(changing.registry, changing.log, 2, configs[1])
    put("new", "milk tea")  # neither version has learned it
    eventually(lambda: "new" in shown(ask(changing.http)), 30)
    assert held() == [TextEncoder(configs[0]).digest]
    assert closest_to("milk tea. tea") == "new"

    def load() -> None:
        with httpx.Client(base_url=changing.url, timeout=60) as client:
            while not seen or seen[-1]["model_version"] == 1:
                seen.append(ask(client))

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        eventually(lambda: len(seen) > 10, 30)
        changing.registry.release()
        for future in loads:
            future.result(timeout=60)
    assert {answer["model_version"] for answer in seen} == {1, 2}
    assert all("new" in shown(answer) for answer in seen)
    assert held() == [TextEncoder(configs[0]).digest, encoder]
    assert changing.http.get("/v1/model").json()["encoder"] == encoder

    put("newer", "coffee paper")
    eventually(lambda: "newer" in shown(ask(changing.http)), 30)
    assert closest_to("coffee paper. tea") == "newer"
    assert closest_to("milk tea. tea") == "new"
    changing.registry.rollback(1)
    eventually(lambda: ask(changing.http)["model_version"] == 1, 30)
    assert {"new", "newer"} <= shown(ask(changing.http))
