"""Texts: the real encoder, the store that encodes each text once, and whitening."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_rec.errors import ModelError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore, Whitening


def test_minilm_puts_like_texts_close_and_says_who_it_is() -> None:
    encoder = TextEncoder(EncoderConfig())
    milk, cream, bolt = encoder.encode(["Fluid milk white only", "Cream and milk", "Steel bolt M6"])
    assert milk.shape == (384,)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(milk, cream) > cosine(milk, bolt) + 0.2
    assert encoder.digest == TextEncoder(EncoderConfig()).digest
    assert encoder.digest != TextEncoder(EncoderConfig(max_tokens=16)).digest


def test_a_folder_that_is_no_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ray-rec"):
        TextEncoder(EncoderConfig(model=str(tmp_path)))


def test_each_distinct_text_is_encoded_once_whoever_asks(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    store = TextStore(f"{tmp_path}/texts", "a" * 64)
    assert store.vectors(["ab", "c", "ab"], encode).tolist() == [[2, 1], [1, 1], [2, 1]]
    other = TextStore(f"{tmp_path}/texts", "a" * 64)
    assert other.vectors(["c", "defg"], encode).tolist() == [[1, 1], [4, 1]]
    assert asked == [["ab", "c"], ["defg"]]
    TextStore(f"{tmp_path}/texts", "b" * 64).vectors(["c"], encode)
    assert asked[-1] == ["c"]  # another encoder has vectors of its own


def test_whitening_makes_directions_uncorrelated_and_of_unit_variance() -> None:
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6)) + 3.0
    whitening = Whitening.fit(raw.astype(np.float32), 4)
    white = (torch.from_numpy(raw).float() - whitening.mean) @ whitening.projection
    covariance = (white.T @ white / len(white)).numpy()
    np.testing.assert_allclose(covariance, np.eye(4), atol=1e-3)


def test_whitening_of_fewer_texts_than_directions_is_finite() -> None:
    raw = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    white = Whitening.fit(raw, 6).apply(torch.from_numpy(raw))
    assert white.shape == (3, 6)
    assert bool(torch.isfinite(white).all())
    np.testing.assert_allclose(white.norm(dim=1).numpy(), np.sqrt(6.0), rtol=1e-5)


def test_where_texts_are_few_alike_ones_stay_alike() -> None:
    raw = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    raw[1] = raw[0] + 0.05 * raw[2]
    white = Whitening.fit(raw, 8).apply(torch.from_numpy(raw))
    cosine = white @ white.T / 8
    assert cosine[0, 1] > 0.9
    assert cosine[0, 2:].max() < 0.5


def test_no_text_stays_zero() -> None:
    raw = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    assert Whitening.fit(raw, 8).apply(torch.zeros(2, 12)).tolist() == [[0.0] * 8] * 2


def test_a_part_whose_writing_broke_off_is_not_seen(tmp_path: Path) -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 2), np.float32)

    TextStore(str(tmp_path), "digest").vectors(["tea"], encode)
    (folder,) = tmp_path.iterdir()
    (folder / "0123.456.part").write_bytes(b"ARROW1, and no more")
    again = TextStore(str(tmp_path), "digest")
    assert again.vectors(["tea"], lambda texts: 0 * encode(texts)).tolist() == [[1.0, 1.0]]
