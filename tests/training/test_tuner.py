"""An encoder that learns with the network: where gradients go, what is kept, texts made anew."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_rec.errors import ModelError
from ray_rec.features.text_augment import TextAugment
from ray_rec.model.changes import Rows as ChangedRows
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.items import ItemTable
from ray_rec.model.ranks import Ranks
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.texts import Texts
from ray_rec.training.tuner import Tuner
from tests.model import toy
from tests.model.encoders import make_encoder

ALL = LearnerConfig(warmup_steps=1, rows_per_step=16, encoder_lr=1e-3, encoder_share=1.0)
POLICIES = ("top-k", "full", "lora", "adalora", "prefix", "adapter")

OpenEncoder = Callable[..., TextEncoder]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def open_encoder(tmp_path: Path) -> OpenEncoder:
    """Opens a tiny GPT-2 that learns by an adapter, or as told."""
    folder = str(make_encoder(tmp_path / "gpt2", "gpt2"))
    small: dict[str, Any] = {"max_tokens": 8, "top_layers": 1, "rank": 2, "rank_steps": 20}

    def opened(policy: str = "adapter", **options: Any) -> TextEncoder:
        return TextEncoder(EncoderConfig(model=folder, policy=policy, **small, **options))

    return opened


def exact(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Vectors without bfloat16, as steps make them."""
    with torch.no_grad():
        return np.asarray(encoder.vectors(texts, mixed=False).numpy())


def make(encoder: TextEncoder, config: LearnerConfig = ALL) -> Learner:
    learner = Learner(toy.PLAIN, config, encoder=encoder if encoder.config.learns else None)
    learner.observe(toy.items(), exact(encoder, toy.items()["text"].to_pylist()))
    return learner


def learn(learner: Learner, number: int, num: int = 48) -> Metrics:
    rows = toy.ring_rows(num, number)
    return learner.learn(toy.window(number, rows), toy.table(rows), -(-num // 16))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor.nan_to_num(), other[name].nan_to_num()) for name, tensor in one.items()
    )


def encoder_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {k: v for k, v in learner.state().items() if k.startswith("encoder.")}


def test_a_first_step_sees_the_texts_that_the_tables_hold(open_encoder: OpenEncoder) -> None:
    """So its losses are those of a learner whose encoder is frozen, up to rounding."""
    learning, frozen = make(open_encoder()), make(open_encoder("frozen"))
    rows = [dict(row, step=0) for row in (*toy.ring_rows(16, 1), *toy.click_rows(16, 2))]
    found = [
        learner.learn(toy.window(0, rows), toy.table(rows), 1).summary()
        for learner in (learning, frozen)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("policy", POLICIES)
def test_both_tasks_teach_the_encoder(policy: str, open_encoder: OpenEncoder) -> None:
    for rows in (toy.ring_rows(32, 1), toy.click_rows(32, 2)):
        encoder = open_encoder(policy)
        learner = make(encoder)
        before, base = encoder_of(learner), encoder.model.state_dict()
        base = {name: tensor.clone() for name, tensor in base.items()}
        for number in range(2):  # AdaLoRA's directions start at zero weight
            learner.learn(toy.window(number, rows), toy.table(rows), 2)
        after = encoder_of(learner)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert len(moved) > 0.7 * len(before)
        learned = encoder.parameters()
        for name, tensor in encoder.model.state_dict().items():
            assert name in learned or torch.equal(tensor, base[name]), name


def test_the_rate_of_the_encoder_is_its_own(open_encoder: OpenEncoder) -> None:
    """Of plain steps on the same gradient, the one at twice the rate goes twice as far."""
    moves = []
    for rate in (0.01, 0.02):
        config = replace(ALL, optimizer="sgd", encoder_lr=rate, weight_decay=0.0)
        learner = make(open_encoder(), config)
        before = encoder_of(learner)
        learn(learner, 0, 16)
        after = encoder_of(learner)
        moves.append(torch.cat([(after[name] - before[name]).flatten() for name in before]))
    assert moves[0].abs().max() > 1e-6
    torch.testing.assert_close(2 * moves[0], moves[1], rtol=1e-3, atol=1e-7)


def test_gradients_of_network_and_encoder_are_clipped_together(open_encoder: OpenEncoder) -> None:
    config = replace(ALL, optimizer="sgd", lr=1.0, encoder_lr=1.0, weight_decay=0.0, clip=1e-3)
    learner = make(open_encoder(), config)
    before = learner.state()
    learn(learner, 0, 16)
    after = learner.state()
    dense = [name for name in before if name.startswith(("model.", "encoder."))]
    moved = torch.cat([(after[name] - before[name]).flatten() for name in dense])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_it_learns_from_other_wordings_and_encodes_the_texts_as_they_are(
    open_encoder: OpenEncoder, tmp_path: Path
) -> None:
    (tmp_path / "words.json").write_text('{"item": ["number"]}')
    words = TextAugment(synonyms=str(tmp_path / "words.json"), synonym_share=1.0)
    encoder, names = open_encoder(), [f"item {n}" for n in range(20)]
    table = ItemTable(toy.PLAIN, torch.float32, torch.device("cpu"))
    texts = Texts(table)
    tuner = Tuner(encoder, texts, share=1.0, mixed=False, wording=words.transform())
    table.grow(20)
    table.text_row[:20] = texts.rows(names, exact(encoder, names))
    tuner.note(names, table.text_row[:20])
    items = table.gather(torch.arange(20), torch.zeros(1, 20, toy.HORIZONS), 5.0)
    live = tuner.live(items, table.text_row[:20], number=0, step=0)
    others = torch.from_numpy(exact(encoder, [f"number {n}" for n in range(20)]))
    torch.testing.assert_close(live.text.detach(), texts.whitened(others), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(tuner.encode(), exact(encoder, names), atol=0.05)


def test_a_share_of_the_texts_is_encoded_anew_the_same_for_all_workers(
    open_encoder: OpenEncoder,
) -> None:
    encoder, num = open_encoder(), toy.NUM_ITEMS
    names = [str(text) for text in toy.items()["text"].to_pylist()]
    table = ItemTable(toy.PLAIN, torch.float32, torch.device("cpu"))
    texts = Texts(table)
    tuner = Tuner(encoder, texts, share=0.25, mixed=False)
    table.grow(num)
    raw = exact(encoder, names)
    table.text_row[:num] = texts.rows(names, raw)
    tuner.note(names, table.text_row[:num])
    white = table.text[:num].clone()
    table.text.zero_()

    def drawn(step: int, rows: torch.Tensor) -> torch.Tensor:
        items = table.gather(rows, torch.zeros(1, num, toy.HORIZONS), 5.0)
        live = tuner.live(items, table.text_row[rows], 7, step).text.detach()
        found = live.any(1)
        torch.testing.assert_close(live[found], white[rows][found], atol=1e-4, rtol=1e-4)
        return found

    everything, odd = torch.arange(num), torch.arange(1, num, 2)
    steps = [drawn(step, everything) for step in range(40)]
    assert 0.2 < float(torch.stack(steps).float().mean()) < 0.3
    assert not torch.equal(steps[0], steps[1])
    for step in range(4):
        assert torch.equal(drawn(step, odd), steps[step][odd])


def test_the_directions_of_adalora_become_more_orthogonal(open_encoder: OpenEncoder) -> None:
    encoder = open_encoder("adalora")
    learner, ranks = make(encoder, replace(ALL, encoder_lr=0.01)), Ranks(encoder.model)
    before = ranks.penalty().item()
    for number in range(4):
        learn(learner, number)
    assert ranks.penalty().item() < 0.8 * before


@pytest.mark.parametrize("policy", ["adapter", "adalora"])
def test_a_loaded_state_goes_on_bit_for_bit(policy: str, open_encoder: OpenEncoder) -> None:
    config = replace(ALL, warmup_steps=4, encoder_share=0.5)
    one = make(open_encoder(policy), config)
    for number in range(3):
        learn(one, number)
    kept = one.state()
    other_encoder = open_encoder(policy)
    other = Learner(toy.PLAIN, config, encoder=other_encoder)
    other.load(kept)
    for learner in (one, other):
        for number in range(3, 8):  # 24 steps: beyond the 20 over which ranks are shared out
            learn(learner, number)
    assert equal(one.state(), other.state())
    assert not equal(one.state(), kept)


def test_renewed_texts_are_what_the_encoder_makes_now(open_encoder: OpenEncoder) -> None:
    encoder = open_encoder()
    learner = make(encoder)
    empty = toy.items(3, 4).set_column(2, "text", pa.array([""]))
    learner.observe(empty, exact(encoder, [""]))
    learner.published()
    for number in range(3):
        learn(learner, number)
    before = learner.export()
    learner.renew_texts()
    after = learner.export()
    texts = [*toy.items()["text"].to_pylist(), ""]
    raw = torch.from_numpy(encoder.encode(texts))
    raw[-1] = 0.0
    torch.testing.assert_close(after["whitening.mean"], raw[:-1].mean(0))
    white = (raw - after["whitening.mean"]) @ before["whitening.projection"]
    white = torch.nn.functional.normalize(white, dim=1) * toy.PLAIN.text_dim**0.5
    torch.testing.assert_close(after["items.text"][:-1], white[:-1], atol=1e-4, rtol=1e-4)
    assert not after["items.text"][-1].any()
    assert not torch.equal(after["items.text"], before["items.text"])
    assert torch.equal(after["whitening.projection"], before["whitening.projection"])
    changed = learner.export_changes()["items.text"]
    assert isinstance(changed, ChangedRows)
    assert changed.row.tolist() == list(range(toy.NUM_ITEMS + 1))


def test_what_all_texts_have_in_common_is_left_out_of_them() -> None:
    """Whitening did so at first; a shift of all would else make any two texts alike."""
    names = [f"item {n}" for n in range(12)]
    raw = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    table = ItemTable(toy.PLAIN, torch.float32, torch.device("cpu"))
    texts = Texts(table)
    texts.rows([*names, ""], np.concatenate([raw, np.ones((1, 16), np.float32)]))
    before = table.text[:13].clone()
    texts.renew(np.concatenate([raw + 100, np.ones((1, 16), np.float32)]))
    torch.testing.assert_close(table.text[:13], before, atol=1e-3, rtol=0)
    assert before[:12].any(1).all()
    assert not before[12].any()


@pytest.mark.parametrize("policy", ["full", "lora"])
def test_a_learning_encoder_does_not_make_all_texts_alike(
    policy: str, open_encoder: OpenEncoder
) -> None:
    learner = make(open_encoder(policy), replace(ALL, encoder_lr=0.01))

    def alike() -> float:
        text = torch.nn.functional.normalize(learner.export()["items.text"], dim=1)
        return float(text.mean(0).square().sum())

    assert alike() < 0.05
    for number in range(6):
        learn(learner, number)
    learner.renew_texts()
    assert alike() < 0.2


def test_the_texts_of_a_frozen_encoder_stay(open_encoder: OpenEncoder) -> None:
    learner = make(open_encoder("frozen"))
    learn(learner, 0)
    before = learner.state()
    learner.renew_texts()
    assert equal(learner.state(), before)
    assert not [name for name in before if "encoder" in name]


def test_a_state_without_an_encoder_is_refused(open_encoder: OpenEncoder) -> None:
    frozen = make(open_encoder("frozen"))
    with pytest.raises(ModelError, match="for other parameters"):
        make(open_encoder()).load(frozen.state())
    with pytest.raises(ModelError, match="for other parameters"):
        make(open_encoder("lora")).load(make(open_encoder()).state())
