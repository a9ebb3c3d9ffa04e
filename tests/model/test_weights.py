"""The one loss of both tasks and its gradient, worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.model.config import ModelConfig
from ray_rec.model.losses import LossSums
from ray_rec.model.weights import TaskWeights
from tests.model import toy

LEARNED = replace(toy.PLAIN, task_weights="uncertainty")
TOTAL = torch.tensor([3.0, 4.0])  # targets and shown items of the step


def _sums(recall: float, targets: int, click: float, shown: int) -> LossSums:
    made = [torch.tensor(value, requires_grad=True) for value in (recall, click)]
    return LossSums(made[0], targets, made[1], shown)


def _loss(weights: TaskWeights, sums: LossSums, step: int = 0) -> float:
    return float(weights(sums, TOTAL, step).detach())


def test_fixed_weights_are_factors_of_the_mean_losses() -> None:
    # 3 · 6 / 3 + 0.5 · 8 / 4
    weights = TaskWeights(replace(toy.PLAIN, beta=3.0, alpha=0.5))
    assert _loss(weights, _sums(6.0, 3, 8.0, 4), step=7) == 7.0
    assert not list(weights.parameters())


def test_scheduled_weights_go_in_a_straight_line_and_stay_at_its_end() -> None:
    ends = {"alpha": 0.0, "alpha_end": 1.0, "beta": 2.0, "beta_end": 1.0, "weight_steps": 4}
    weights = TaskWeights(replace(toy.PLAIN, task_weights="scheduled", **ends))
    assert [weights.at(step) for step in (0, 1, 4, 9)] == [(2, 0), (1.75, 0.25), (1, 1), (1, 1)]
    # step 1: 1.75 · 6 / 3 + 0.25 · 8 / 4
    assert _loss(weights, _sums(6.0, 3, 8.0, 4), step=1) == 4.0


def test_the_gradient_of_a_learned_weight() -> None:
    # recall: mean 2, d/ds (exp(-s) · 2 + s / 2) = -2 + 1/2 at s = 0
    # click: mean 1/2, so s = 0 is where exp(s) = 2 · l: no gradient
    weights = TaskWeights(LEARNED)
    sums = _sums(6.0, 3, 2.0, 4)
    loss = weights(sums, TOTAL, 0)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 2.5
    assert [s.grad.item() for s in weights.log_variance] == [-1.5, 0.0]
    assert sums.recall.grad is not None
    assert sums.recall.grad.item() == pytest.approx(1 / 3)


def test_a_learned_weight_lets_an_uncertain_task_count_less() -> None:
    weights = TaskWeights(LEARNED)
    with torch.no_grad():
        weights.log_variance[0].fill_(math.log(4))
    # recall: 2 / 4 + log(4) / 2; click: 1/2
    assert _loss(weights, _sums(6.0, 3, 2.0, 4)) == pytest.approx(0.5 + math.log(4) / 2 + 0.5)


def test_the_parts_of_two_workers_are_the_whole() -> None:
    """One has two of the three targets and no click, the other the rest."""
    whole, parts = TaskWeights(LEARNED), TaskWeights(LEARNED)
    torch.autograd.backward(whole(_sums(6.0, 3, 2.0, 4), TOTAL, 0))
    for sums in (_sums(5.0, 2, 0.0, 0), _sums(1.0, 1, 2.0, 4)):
        torch.autograd.backward(parts(sums, TOTAL, 0))
    for one, other in zip(whole.log_variance, parts.log_variance, strict=True):
        assert one.grad.item() == pytest.approx(other.grad.item())


def test_the_weight_of_a_task_without_rows_is_idle() -> None:
    weights = TaskWeights(LEARNED)
    recall, click = weights.log_variance
    found = [weights.idle(total) for total in ((3.0, 4.0), (3.0, 0.0), (0.0, 4.0))]
    assert [[id(p) for p in idle] for idle in found] == [[], [id(click)], [id(recall)]]
    assert TaskWeights(ModelConfig()).idle((0.0, 0.0)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task_weights": "scheduled"}, "model.weight_steps of at least 1; it is 0"),
        ({"alpha_end": -1.0}, "model.alpha_end and model.beta_end must not be negative"),
        ({"alpha": 0.0, "beta": 0.0}, "model.alpha and model.beta"),
    ],
)
def test_weights_that_cannot_work(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**changes)
