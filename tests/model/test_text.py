"""Whitening and the store of text vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ray_rec.errors import ModelError
from ray_rec.model.text import TextStore, Whitening

Vectors = npt.NDArray[np.float32]


def _raw(num: int, dim: int, seed: int = 0) -> Vectors:
    """Correlated vectors with a common offset, as encoders give them."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dim, dim)) * np.linspace(0.2, 2.0, dim)
    return (random.normal(size=(num, dim)) @ mixing + 5.0).astype(np.float32)


def test_whitened_directions_are_uncorrelated_and_of_unit_variance() -> None:
    raw = _raw(500, 12)
    white = Whitening.fit(raw, 8)
    out = ((torch.from_numpy(raw) - white.mean) @ white.projection).double()
    covariance = (out - out.mean(0)).T @ (out - out.mean(0)) / len(out)
    torch.testing.assert_close(covariance, torch.eye(8).double(), atol=1e-3, rtol=0)


def test_whitened_texts_have_one_length() -> None:
    raw = _raw(50, 12)
    out = Whitening.fit(raw, 8).apply(torch.from_numpy(raw))
    torch.testing.assert_close(out.norm(dim=1), torch.full((50,), 8**0.5))


@pytest.mark.parametrize("num", [1, 2, 5])
def test_fewer_texts_than_directions_still_give_finite_vectors(num: int) -> None:
    raw = _raw(num, 12)
    out = Whitening.fit(raw, 8).apply(torch.from_numpy(raw))
    assert out.shape == (num, 8)
    assert torch.isfinite(out).all()


def test_alike_texts_stay_alike_where_texts_are_few() -> None:
    raw = _raw(4, 12)
    raw[1] = raw[0] + 0.01 * raw[2]
    out = Whitening.fit(raw, 8).apply(torch.from_numpy(raw))
    cosine = out @ out.T / 8
    assert cosine[0, 1] > cosine[0, 2]
    assert cosine[0, 1] > cosine[0, 3]


def test_no_text_stays_zero() -> None:
    white = Whitening.fit(_raw(50, 12), 8)
    assert white.apply(torch.zeros(2, 12)).tolist() == [[0.0] * 8] * 2


class _Counting:
    """Encodes a text as its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_only_distinct_texts_that_are_missing_are_encoded(tmp_path: Path) -> None:
    encode, store = _Counting(), TextStore(str(tmp_path), "digest")
    first = store.vectors(["tea", "coffee", "tea"], encode)
    again = store.vectors(["milk", "tea"], encode)
    assert first[:, 0].tolist() == [3, 6, 3]
    assert again[:, 0].tolist() == [4, 3]
    assert encode.asked == [["tea", "coffee"], ["milk"]]


def test_another_process_finds_what_was_encoded(tmp_path: Path) -> None:
    TextStore(str(tmp_path), "digest").vectors(["tea", "a"], _Counting())
    encode = _Counting()
    assert TextStore(str(tmp_path), "digest").vectors(["a"], encode).tolist() == [[1.0, 1.0]]
    assert encode.asked == []


def test_two_stores_see_each_others_texts(tmp_path: Path) -> None:
    one, other, encode = TextStore(str(tmp_path), "d"), TextStore(str(tmp_path), "d"), _Counting()
    one.vectors(["tea"], encode)
    other.vectors(["tea", "milk"], encode)
    one.vectors(["milk"], encode)
    assert encode.asked == [["tea"], ["milk"]]


def test_another_encoder_has_vectors_of_its_own(tmp_path: Path) -> None:
    encode = _Counting()
    TextStore(str(tmp_path), "one").vectors(["tea"], encode)
    TextStore(str(tmp_path), "other").vectors(["tea"], encode)
    assert encode.asked == [["tea"], ["tea"]]


def test_an_encoder_that_loses_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="2 texts"):
        TextStore(str(tmp_path), "d").vectors(
            ["a", "b"], lambda texts: np.zeros((1, 3), np.float32)
        )
