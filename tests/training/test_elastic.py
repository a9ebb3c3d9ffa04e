"""The penalty towards the version before: its gradient by hand, and how it holds a learner."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ray_rec.errors import ConfigError
from ray_rec.training.config import LearnerConfig
from ray_rec.training.elastic import Elastic
from ray_rec.training.learner import Learner
from tests.model import toy

PLAIN = LearnerConfig(warmup_steps=1, rows_per_step=16, optimizer="sgd", lr=0.05)


def _group(weight: nn.Parameter, rate: float) -> list[dict[str, Any]]:
    return [{"params": [weight], "lr": rate}]


def test_a_step_is_drawn_back_as_the_squared_distance_would() -> None:
    """3 · (w - 1)² at w = 1.5 has the slope 2 · 3 · 0.5 = 3; at a rate of 0.1 that is 0.3."""
    weight = nn.Parameter(torch.full((2,), 1.5))
    weight.grad = torch.zeros(2)
    elastic = Elastic({"w": weight}, 3.0)
    elastic.pull(_group(weight, 0.1))
    assert weight.tolist() == [1.5, 1.5]  # there is no version yet
    with torch.no_grad():
        weight.fill_(1.0)
    elastic.settle()
    with torch.no_grad():
        weight.fill_(1.5)
    elastic.pull(_group(weight, 0.1))
    torch.testing.assert_close(weight.detach(), torch.full((2,), 1.2))
    elastic.pull(_group(weight, 10.0))  # never beyond
    assert weight.tolist() == [1.0, 1.0]


def test_a_weight_without_gradient_in_a_step_stays() -> None:
    weight = nn.Parameter(torch.ones(1))
    elastic = Elastic({"w": weight}, 3.0)
    elastic.settle()
    with torch.no_grad():
        weight.fill_(2.0)
    elastic.pull(_group(weight, 0.1))
    assert weight.item() == 2.0


def _learner(strength: float) -> Learner:
    torch.set_num_threads(1)
    learner = Learner(toy.PLAIN, replace(PLAIN, elastic=strength))
    learner.observe(toy.items(), toy.text_vectors())
    return learner


def _learn(learner: Learner, number: int) -> None:
    rows = toy.ring_rows(64, number)
    learner.learn(toy.window(number, rows), toy.table(rows), 4)


def _moved(learner: Learner, before: dict[str, Tensor]) -> float:
    after = learner.state()
    names = [name for name in before if name.startswith("model.")]
    return sum(float((after[name] - before[name]).square().sum()) for name in names)


def test_the_stronger_it_is_the_nearer_a_learner_stays_to_its_last_version() -> None:
    moved = []
    for strength in (0.0, 0.5, 5.0):
        learner = _learner(strength)
        _learn(learner, 0)
        before = learner.state()
        learner.published()
        _learn(learner, 1)
        moved.append(_moved(learner, before))
    assert moved[0] > 1.1 * moved[1] > 1.1 * moved[2] > 0


def test_before_the_first_version_it_learns_as_without() -> None:
    plain, held = _learner(0.0), _learner(5.0)
    for learner in (plain, held):
        _learn(learner, 0)
    assert _moved(held, plain.state()) == 0


def test_a_checkpoint_keeps_the_version_that_it_holds_to() -> None:
    whole, other = _learner(0.5), _learner(0.5)
    _learn(whole, 0)
    whole.published()
    _learn(whole, 1)
    other.load(whole.state())
    for learner in (whole, other):
        _learn(learner, 2)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor.nan_to_num(), other.state()[name].nan_to_num()), name


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.elastic is"):
        LearnerConfig(elastic=-1.0)
