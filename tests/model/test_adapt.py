"""Adaptation to a catalogue's texts: the losses by hand, and a tiny encoder that learns them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_rec.errors import ConfigError, DataError, ModelError
from ray_rec.features.text_augment import WordDropout
from ray_rec.model.adapt import AdaptOptions, AdaptReport, adapt
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.self_supervised import LossOptions, MaskedHead, hidden_words, view_loss
from tests.model.encoders import PLACES, WORDS, make_encoder

SHOP = [f"{word} number {n} item {word}" for word in WORDS[:8] for n in range(12)]
OPTIONS = AdaptOptions(epochs=15, batch_size=16, lr=0.01, held_out=0.2)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(make_encoder(tmp_path_factory.mktemp("encoder"), "bert"))


def _encoder(folder: str, policy: Any = "full") -> TextEncoder:
    return TextEncoder(EncoderConfig(folder, max_tokens=PLACES - 4, policy=policy))


@pytest.fixture(scope="module")
def adapted(bert: str) -> tuple[TextEncoder, AdaptReport]:
    encoder = _encoder(bert)
    return encoder, adapt(encoder, SHOP, OPTIONS)


def test_both_losses_fall_on_texts_that_were_not_learned(
    adapted: tuple[TextEncoder, AdaptReport],
) -> None:
    report = adapted[1]
    assert (report.learned, report.held_out) == (77, 19)  # a fifth of 96 texts
    assert report.steps == 15 * -(-report.learned // 16)
    # before, any of 64 words is as likely; the kind of thing is told by its repetition
    assert report.before["masked"] == pytest.approx(math.log(64), abs=0.3)
    assert report.after["masked"] < report.before["masked"] - 1
    assert report.after["contrastive"] < report.before["contrastive"] - 0.2


def test_the_folder_opens_as_any_encoder_with_another_digest(
    adapted: tuple[TextEncoder, AdaptReport], bert: str, tmp_path: Path
) -> None:
    adapted[0].save(tmp_path / "adapted")
    frozen, old = _encoder(str(tmp_path / "adapted"), "frozen"), _encoder(bert, "frozen")
    assert frozen.digest != old.digest
    assert torch.equal(frozen.vectors(SHOP[:5]), adapted[0].vectors(SHOP[:5]))
    assert not torch.allclose(frozen.vectors(SHOP[:5]), old.vectors(SHOP[:5]), atol=0.1)
    assert _encoder(str(tmp_path / "adapted"), "lora").size.trained > 0  # and learns on as any
    with pytest.raises(ModelError, match="there already"):
        adapted[0].save(tmp_path / "adapted")


def test_the_same_seed_gives_the_same_weights_whatever_the_order_of_texts(bert: str) -> None:
    options = replace(OPTIONS, epochs=1)
    one, same, other = (_encoder(bert) for _ in range(3))
    first = adapt(one, SHOP, options, WordDropout(0.2))
    torch.rand(3)
    assert adapt(same, SHOP[::-1] + SHOP, options, WordDropout(0.2)) == first
    assert same.digest == one.digest
    assert adapt(other, SHOP, replace(options, seed=1), WordDropout(0.2)).steps == first.steps
    assert other.digest != one.digest


def test_adapting_takes_no_random_numbers(bert: str) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    adapt(_encoder(bert), SHOP[:40], replace(OPTIONS, epochs=1))
    assert torch.equal(torch.rand(2), wanted)


def test_only_what_the_policy_names_learns(bert: str) -> None:
    encoder = _encoder(bert, "top-k")
    before = {name: p.clone() for name, p in encoder.model.named_parameters()}
    adapt(encoder, SHOP, replace(OPTIONS, epochs=1))
    moved = {n for n, p in encoder.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(encoder.parameters())


def test_a_decoder_is_adapted_by_the_contrastive_loss_alone(tmp_path: Path) -> None:
    encoder = _encoder(str(make_encoder(tmp_path / "gpt2", "gpt2")))
    with pytest.raises(ModelError, match="--masked 0"):
        adapt(encoder, SHOP, OPTIONS)
    options = replace(OPTIONS, losses=LossOptions(masked=0.0), epochs=8, lr=1e-3)
    report = adapt(encoder, SHOP, options)
    assert set(report.before) == {"contrastive"}
    assert report.after["contrastive"] < report.before["contrastive"]


def test_what_cannot_be_adapted_says_why(bert: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="frozen"):
        adapt(_encoder(bert, "frozen"), SHOP, OPTIONS)
    with pytest.raises(DataError, match="1 distinct texts are too few"):
        adapt(_encoder(bert), ["tea", "tea", " "], OPTIONS)
    with pytest.raises(ModelError, match="full or top-k"):
        _encoder(bert, "lora").save(tmp_path / "new")


def test_two_views_are_told_from_others_by_their_cosine() -> None:
    # cosines 1 and 0 for the first text, 0.6 and 0.8 for the second, over a temperature of 1
    one = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    other = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    first = math.log(math.exp(1) + 1) - 1
    second = math.log(math.exp(0.6) + math.exp(0.8)) - 0.8
    assert float(view_loss(one, other, 1.0)) == pytest.approx((first + second) / 2)


def test_of_ten_hidden_words_eight_are_masked_and_one_is_any() -> None:
    tokens = torch.full((200, 50), 7)
    asked = torch.arange(50).expand(200, 50) < 20
    torch.manual_seed(0)
    shown = hidden_words(tokens, asked, mask_token=4, num_words=1000)
    assert (shown[~asked] == 7).all()
    shares = [(shown[asked] == word).float().mean().item() for word in (4, 7)]
    assert shares == pytest.approx([0.8, 0.1], abs=0.02)


def test_the_head_ends_in_the_table_of_words() -> None:
    table = torch.eye(4)[:3]
    head = MaskedHead(table)
    with torch.no_grad():
        head.bias[2] = 5.0
        hidden = head.transform(torch.ones(1, 4))
        assert head(torch.ones(1, 4), table).tolist() == [
            pytest.approx([hidden[0, 0].item(), hidden[0, 1].item(), hidden[0, 2].item() + 5])
        ]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"held_out": 1.0}],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdaptOptions(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"masked": -1.0},
        {"masked": 0.0, "contrastive": 0.0},
        {"temperature": 0.0},
        {"mask_share": 0},
    ],
)
def test_losses_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LossOptions(**wrong)
