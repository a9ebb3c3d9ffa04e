"""Sampled negatives, the two optimizers and the rates against plain references."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.model.config import ModelConfig
from ray_rec.model.losses import sampled_logits
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.training.config import LearnerConfig
from ray_rec.training.course import Course, Stretch
from ray_rec.training.descent import Descent
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Negatives
from ray_rec.training.optimizer import EPSILON, dense_optimizer, rowwise_adagrad_
from ray_rec.training.schedule import Rates, scheduled
from tests.model import toy

SAMPLED = ModelConfig(exact_items=0, negatives=20)


def test_few_items_are_all_taken() -> None:
    drawn = Negatives(toy.popularity(), ModelConfig(exact_items=toy.NUM_ITEMS), 0).draw(3)
    assert drawn.row.tolist() == list(range(toy.NUM_ITEMS))
    assert not drawn.log_chance.any()


def test_a_draw_depends_on_window_and_step_alone() -> None:
    popularity = toy.popularity(200)
    one = Negatives(popularity, SAMPLED, 4)
    first = [one.draw(step).row.tolist() for step in (0, 1, 2)]
    again = Negatives(popularity, SAMPLED, 4)
    assert [again.draw(step).row.tolist() for step in (2, 1, 0)] == first[::-1]
    assert Negatives(popularity, SAMPLED, 5).draw(0).row.tolist() != first[0]


def test_the_sampled_sum_is_the_full_sum_on_average() -> None:
    """logQ: the exponentials of corrected scores add up to those of all items, in expectation."""
    popularity = toy.popularity(60)
    scores = torch.linspace(-2, 2, 60).double()
    negatives, totals = Negatives(popularity, SAMPLED, 1), []
    for step in range(4000):
        drawn = negatives.draw(step)
        some = sampled_logits(scores[drawn.row][None], torch.from_numpy(drawn.log_chance))
        totals.append(float(some.exp().sum()))
    error = np.std(totals) / len(totals) ** 0.5
    assert np.mean(totals) == pytest.approx(float(scores.exp().sum()), abs=4 * error)


def test_before_any_event_all_items_are_drawn_alike() -> None:
    chance = Negatives(np.zeros((100, 3), np.float32), SAMPLED, 0).draw(0).log_chance
    assert np.ptp(chance) == pytest.approx(0)


def test_row_wise_adagrad_is_the_dense_one_on_the_rows_touched() -> None:
    random = np.random.default_rng(0)
    table = torch.from_numpy(random.normal(size=(6, 3)))
    accumulator, expected = torch.zeros(6).double(), table.numpy().copy()
    squares = np.zeros(6)
    for _ in range(5):
        rows = np.sort(random.choice(6, 3, replace=False))
        grad = random.normal(size=(3, 3))
        rowwise_adagrad_(table, accumulator, torch.from_numpy(rows), torch.from_numpy(grad), lr=0.1)
        for row, g in zip(rows, grad, strict=True):
            squares[row] += (g**2).mean()
            expected[row] -= 0.1 * g / (np.sqrt(squares[row]) + EPSILON)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(accumulator.numpy(), squares, rtol=1e-12)


def test_a_row_without_gradient_stays() -> None:
    table, accumulator = torch.ones(2, 3), torch.zeros(2)
    rowwise_adagrad_(table, accumulator, torch.tensor([1]), torch.zeros(1, 3), lr=0.1)
    assert torch.equal(table, torch.ones(2, 3))


def test_matrices_decay_and_nothing_else_does() -> None:
    model = MultiTaskModel(replace(toy.PLAIN, blocks=1))
    named = dict(model.named_parameters())
    optimizer = dense_optimizer(named, LearnerConfig(weight_decay=0.5))
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        decays = of[id(parameter)]["weight_decay"] > 0
        assert decays == (parameter.ndim > 1 and not name.startswith("recall.")), name


def rates(config: LearnerConfig, steps: int) -> list[float]:
    """Return the network's rate in each step, by how far plain steps against a gradient of 1 go."""
    weight = torch.nn.Parameter(torch.zeros(2))
    descent = Descent({"w": weight}, replace(config, optimizer="sgd", clip=10.0))
    found = []
    for step in range(steps):
        weight.grad = torch.ones(2)
        before = float(weight.detach()[0])
        descent.step(scheduled(config, step))
        found.append(before - float(weight.detach()[0]))
    assert descent.steps == steps
    return found


def test_the_rate_warms_up_and_then_stays() -> None:
    found = rates(LearnerConfig(lr=1.0, warmup_steps=4), 6)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_the_rate_comes_down_by_the_cosine() -> None:
    """Halfway (1 + cos(pi/2)) / 2 = .5, a quarter of the way (1 + cos(pi/4)) / 2 = .853553."""
    config = LearnerConfig(lr=2.0, warmup_steps=2, total_steps=6, schedule="cosine")
    assert rates(config, 8) == pytest.approx(
        [1.0, 2.0, 2.0, 1.707107, 1.0, 0.292893, 0.0, 0.0], abs=1e-6
    )


def test_several_passes_share_one_cycle_whatever_was_learned_before() -> None:
    """Ten steps, the second half of 20: the middle is (.5 - .1) / .9 = 4/9 of the way down."""
    stretch = Stretch(Moments.once(toy.popularity()), 0.5, 1.0)
    course = Course(7, 10, 0.1, stretch.moments, torch.zeros(0), None, stretch)
    found = [course.rates(LearnerConfig(), step, taken=1_000) for step in range(10)]
    assert found[0].network == found[0].own == pytest.approx((1 + np.cos(np.pi * 4 / 9)) / 2)
    assert found[9].network == pytest.approx((1 + np.cos(np.pi * 17 / 18)) / 2)
    assert {rates.scale for rates in found} == {0.1}


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_without_an_end_is_refused(schedule: Any) -> None:
    with pytest.raises(ConfigError, match=r"total_steps above learner\.warmup_steps \(50\)"):
        LearnerConfig(schedule=schedule, total_steps=50)


def test_an_encoder_has_a_rate_of_its_own() -> None:
    """Plain steps against gradients of 1: by .5 and by .25."""
    network, matrix, bias = (torch.nn.Parameter(torch.ones(*s)) for s in ((2, 2), (2, 2), (2,)))
    named = {"w": network, "encoder.w": matrix, "encoder.b": bias}
    config = LearnerConfig(
        optimizer="sgd", lr=0.5, encoder_lr=0.25, warmup_steps=0, weight_decay=0.0
    )
    descent = Descent(named, config)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    descent.step(Rates(network=1.0, own=0.0))
    assert [float(p.detach().flatten()[0]) for p in named.values()] == [0.5, 0.75, 0.75]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "adafactor"])
def test_every_optimizer_goes_downhill_and_on_from_its_state(name: Any) -> None:
    config = LearnerConfig(optimizer=name, lr=0.1)

    def started() -> tuple[dict[str, torch.nn.Parameter], Descent]:
        named = {"w": torch.nn.Parameter(torch.full((3, 2), 2.0))}
        return named, Descent(named, config)

    def step(named: dict[str, torch.nn.Parameter], descent: Descent) -> float:
        descent.zero_grad()
        loss = named["w"].square().sum()
        torch.autograd.backward(loss)
        descent.step(scheduled(config, descent.steps))
        return float(loss.detach())

    one, other = started(), started()
    losses = [step(*one) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    other[0]["w"].data.copy_(one[0]["w"].data)
    other[1].load(one[1].state())
    assert step(*one) == step(*other)
    assert torch.equal(one[0]["w"], other[0]["w"])
