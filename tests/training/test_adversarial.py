"""FGM by hand, and in the steps of a learner."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ray_rec.errors import ConfigError
from ray_rec.features.sequence_augment import SequenceAugment
from ray_rec.model.items import ItemSlice
from ray_rec.training.adversarial import uphill, with_adversary
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy

TEXT = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])  # lengths 5, 2 and none
FAST = LearnerConfig(warmup_steps=1, rows_per_step=16)


def _items(text: Tensor) -> ItemSlice:
    none = torch.zeros(3)
    own, no_groups = torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2, dtype=torch.int64)
    return ItemSlice(own, none, text, torch.arange(3), none, none, no_groups)


def test_each_text_moves_by_a_share_of_its_length_along_its_gradient() -> None:
    gradient = torch.tensor([[0.0, -0.5], [0.6, 0.8], [1.0, 1.0]])
    moved = uphill(TEXT, gradient, 0.1)
    expected = torch.tensor([[0.0, -0.5], [0.12, 0.16], [0.0, 0.0]])
    torch.testing.assert_close(moved, expected)
    assert uphill(TEXT, torch.zeros(3, 2), 0.1).tolist() == [[0, 0]] * 3


def test_the_loss_and_its_gradient_are_those_of_both_texts() -> None:
    # loss = sum of w·text = (3 - 4) + 4 = 3; w is the gradient of each text, of length sqrt(2),
    # 2 and 0, so at texts moved by 0.1 of their lengths it is higher by 0.5·sqrt(2) + 0.2·2
    weight = torch.tensor([[1.0, -1.0], [0.0, 2.0], [0.0, 0.0]], requires_grad=True)

    def losses(items: ItemSlice) -> tuple[Tensor, str]:
        return (weight * items.text).sum() + 0 * items.id.sum(), "beside"

    items = _items(TEXT)
    total, beside = with_adversary(losses, items, epsilon=0.1, weight=2.0)
    rise = 0.5 * 2**0.5 + 0.4
    assert float(total.detach()) == pytest.approx(3 + 2 * (3 + rise))
    assert beside == "beside"
    torch.autograd.backward(total)
    # text + 2 · (text + move), the move (0.5, -0.5)/sqrt(2), (0, 0.2) and none
    side = 0.5 / 2**0.5
    expected = torch.tensor([[9 + 2 * side, 12 - 2 * side], [0, 6 + 0.4], [0, 0]])
    torch.testing.assert_close(weight.grad, expected)
    assert items.id.grad is not None


def test_an_encoder_that_made_the_texts_learns_from_both() -> None:
    scale = torch.tensor(1.0, requires_grad=True)
    weight = torch.tensor([[1.0, -1.0], [0.0, 2.0], [0.0, 0.0]])

    def losses(items: ItemSlice) -> tuple[Tensor, None]:
        return (weight * items.text).sum(), None

    total, _ = with_adversary(losses, _items(scale * TEXT), epsilon=0.1)
    torch.autograd.backward(total)
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(3 + 3)


def test_without_epsilon_the_losses_are_asked_once() -> None:
    asked: list[ItemSlice] = []

    def losses(items: ItemSlice) -> tuple[Tensor, int]:
        asked.append(items)
        return items.text.sum(), 7

    items = _items(TEXT)
    assert with_adversary(losses, items, epsilon=0.0) == (TEXT.sum(), 7)
    assert asked == [items]


def _learned(config: LearnerConfig, windows: int = 1, tokens: int = 0) -> Learner:
    """Learn windows of the ring; `tokens` are added to what people took, round the ring."""
    torch.set_num_threads(1)
    made = Learner(toy.PLAIN, config)
    made.observe(toy.items(), toy.text_vectors())
    for number in range(windows):
        rows = toy.ring_rows(64, seed=number)
        for row in rows:
            row["token_item"] = [(item + tokens) % toy.NUM_ITEMS for item in row["token_item"]]
        made.learn(toy.window(number, rows), toy.table(rows), 4)
    return made


def test_a_learner_with_an_adversary_repeats_itself_and_differs_from_one_without() -> None:
    config = replace(FAST, adversarial_epsilon=0.1)
    one, same, plain = (_learned(c).state() for c in (config, config, FAST))
    name = "model.tower.0.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.allclose(one[name], plain[name], atol=1e-4)


def test_a_learner_with_an_adversary_still_learns() -> None:
    rows = toy.ring_rows(128, seed=99)
    learned = _learned(replace(FAST, adversarial_epsilon=0.05), windows=15)
    after = learned.test(toy.window(15, rows), toy.table(rows)).summary()
    assert after["hr@10"] > 0.7


def test_learning_from_masked_tokens_knows_nothing_of_their_items() -> None:
    blind = replace(FAST, sequences=SequenceAugment(mask=1.0))
    one, other = (_learned(blind, tokens=shift).state() for shift in (0, 13))
    seeing = _learned(FAST, tokens=13).state()
    for name in ("model.trunk.norm.weight", "model.tower.0.weight", "items.id"):
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(one[name], seeing[name], atol=1e-3)


@pytest.mark.parametrize("wrong", [-0.1, float("nan")])
def test_an_epsilon_that_cannot_work_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="adversarial_epsilon"):
        LearnerConfig(adversarial_epsilon=wrong)
