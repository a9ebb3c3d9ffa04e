"""Encoders held for the versions in service: opened when asked for, two at most, one load each."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Draft, Registry
from ray_rec.serving import encoders as module
from ray_rec.serving.encoders import HeldEncoders, encode_together
from tests.model.encoders import make_encoder

TEXTS = ["milk bread", "coffee", "tea paper soap"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"{tmp_path}/registry", create=True)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> list[EncoderConfig]:
    """Three tiny BERTs in folders."""
    folder = tmp_path_factory.mktemp("models")
    made = [make_encoder(folder / str(seed), "bert", seed) for seed in range(3)]
    return [EncoderConfig(model=str(path), max_tokens=8) for path in made]


def digest_of(config: EncoderConfig) -> str:
    return TextEncoder(config).digest


def publish(registry: Registry, number: int, config: EncoderConfig, digest: str) -> None:
    draft = Draft(None, (0, 0), {}, {"encoder": asdict(config), "n": number}, digest)
    registry.publish(number, {"w": torch.ones(1)}, [], draft)


@pytest.fixture
def held(registry: Registry, configs: list[EncoderConfig]) -> HeldEncoders:
    """The first is configured, versions 1 to 3 name them all."""
    for number, config in enumerate(configs, 1):
        publish(registry, number, config, digest_of(config))
    return HeldEncoders(configs[0], registry.url)


def test_what_a_version_names_is_opened_when_it_is_asked_for(
    held: HeldEncoders, configs: list[EncoderConfig]
) -> None:
    first, second, _ = map(digest_of, configs)
    assert held.digests() == [first]
    vectors = held.get(second).encode(TEXTS)
    assert held.digests() == [first, second]
    np.testing.assert_array_equal(vectors, TextEncoder(configs[1]).encode(TEXTS))
    assert held.get(second) is held.get(second)


def test_the_one_asked_for_longest_ago_makes_way(
    held: HeldEncoders, configs: list[EncoderConfig]
) -> None:
    first, second, third = map(digest_of, configs)
    held.get(second)
    held.get(first)
    held.get(third)
    assert held.digests() == [first, third]
    held.get(second)
    assert held.digests() == [third, second]
    assert held.get(first).digest == first, "the configured one is opened anew"
    assert held.digests() == [second, first]


def test_a_tuned_one_comes_from_the_registry(
    registry: Registry, held: HeldEncoders, configs: list[EncoderConfig]
) -> None:
    config = replace(configs[1], policy="adapter", bottleneck=2, max_tokens=6)
    tuned = TextEncoder(config)
    with torch.no_grad():
        for parameter in tuned.parameters().values():
            parameter += 0.5
    registry.encoders.write(tuned.digest, tuned.files())
    publish(registry, 4, replace(config, model="/gone since"), tuned.digest)
    found = held.get(tuned.digest)
    assert not found.config.learns
    np.testing.assert_array_equal(found.encode(TEXTS), tuned.encode(TEXTS))
    assert not Path(found.config.model).exists(), "the copy is gone once it is loaded"


def test_one_that_is_nowhere_is_named_and_what_is_held_stays(
    registry: Registry, held: HeldEncoders, configs: list[EncoderConfig], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no version of .*registry names encoder ab12"):
        held.get("ab12")
    changed = make_encoder(tmp_path / "model", "bert", seed=7)
    config = replace(configs[0], model=str(changed))
    digest = digest_of(config)
    publish(registry, 4, config, digest)
    (changed / "added.txt").write_text("not what the version was made with")
    with pytest.raises(ConfigError, match=rf"{digest[:12]} is not in .* holds encoder .*roll back"):
        held.get(digest)
    rmtree(changed)
    with pytest.raises(ConfigError, match=rf"{digest[:12]}.* is neither a folder .*roll back"):
        held.get(digest)
    assert held.digests() == [digest_of(configs[0])]
    make_encoder(changed, "bert", seed=7)
    assert held.get(digest).digest == digest, "it is tried again when it is asked for again"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """Encoders that do not open before the event, and the folders of those that were opened."""
    go, opened = threading.Event(), list[str]()

    class Slow(TextEncoder):
        def __init__(self, config: EncoderConfig) -> None:
            opened.append(config.model)
            go.wait(60)
            super().__init__(config)

    monkeypatch.setattr(module, "TextEncoder", Slow)
    yield go, opened
    go.set()


def test_many_who_ask_at_once_wait_for_one_load(
    held: HeldEncoders, configs: list[EncoderConfig], gate: tuple[threading.Event, list[str]]
) -> None:
    go, opened = gate
    first, second, third = map(digest_of, configs)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(held.get, digest) for digest in [second, third] * 4]
        assert pool.submit(held.get, first).result(60).digest == first, "nobody waits for others"
        go.set()
        found = [future.result(60) for future in asked]
    assert sorted(opened) == [configs[1].model, configs[2].model]
    assert len(set(map(id, found))) == 2
    assert len(held.digests()) == 2


def test_requests_of_two_encoders_in_one_batch(configs: list[EncoderConfig]) -> None:
    one, two = TextEncoder(configs[0]), TextEncoder(configs[1])
    asked = [(one, TEXTS[:2]), (two, TEXTS[1:]), (one, []), (one, TEXTS[2:])]
    found = encode_together(asked)
    assert [part.shape for part in found] == [(2, 16), (2, 16), (0, 16), (1, 16)]
    for (encoder, texts), vectors in zip(asked, found, strict=True):
        np.testing.assert_allclose(vectors, encoder.encode(texts), atol=0.02)  # bf16 batches differ
