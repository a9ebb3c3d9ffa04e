"""The average of the weights: by hand, in what a learner publishes, and from a checkpoint on."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ray_rec.errors import ConfigError
from ray_rec.training.averaging import Average
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy

PLAIN = LearnerConfig(warmup_steps=1, rows_per_step=16)
AVERAGED = replace(PLAIN, average=0.9)


def _put(parameter: nn.Parameter, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)


def test_the_average_follows_fast_at_first_and_by_its_decay_later() -> None:
    weight = nn.Parameter(torch.ones(2))
    average = Average({"w": weight}, 0.5)
    _put(weight, 12.0)
    average.step(1)  # d = 2/11: 2/11 · 1 + 9/11 · 12
    torch.testing.assert_close(average.weights["w"], torch.full((2,), 10.0))
    _put(weight, 2.0)
    average.step(2)  # d = 3/12: 1/4 · 10 + 3/4 · 2
    torch.testing.assert_close(average.weights["w"], torch.full((2,), 4.0))
    average.step(100)  # d = 101/110 is above the decay: 1/2 · 4 + 1/2 · 2
    torch.testing.assert_close(average.weights["w"], torch.full((2,), 3.0))


def test_the_parameters_are_the_average_inside_only() -> None:
    weight = nn.Parameter(torch.ones(1))
    average = Average({"w": weight}, 0.5)
    _put(weight, 12.0)
    with average.in_place():
        assert weight.item() == 1.0
    assert weight.item() == 12.0


def test_without_a_decay_nothing_is_held() -> None:
    average = Average({"w": nn.Parameter(torch.ones(1))}, 0.0)
    average.step(1)
    assert average.weights == average.state() == {}


def _learner(config: LearnerConfig, windows: int = 2) -> Learner:
    torch.set_num_threads(1)
    learner = Learner(replace(toy.PLAIN, calibration="platt"), config)
    learner.observe(toy.items(), toy.text_vectors())
    for number in range(windows):
        _learn(learner, number)
    return learner


def _learn(learner: Learner, number: int) -> None:
    rows = [*toy.ring_rows(32, number), *toy.click_rows(16, number)]
    for at, row in enumerate(rows):
        row["step"] = at // 16
    learner.learn(toy.window(number, rows), toy.table(rows), 3)
    learner.calibrate(toy.table(toy.click_rows(12, seed=50 + number)))


def _network(learner: Learner) -> dict[str, torch.Tensor]:
    weights = dict(learner.tensors())
    return {k: v for k, v in weights.items() if k.startswith("model.") and "calibration" not in k}


def test_what_is_published_is_the_average_and_learning_goes_on_from_the_weights() -> None:
    plain, averaged = _learner(PLAIN), _learner(AVERAGED)
    state = averaged.state()
    for name, weight in _network(plain).items():
        assert torch.equal(weight, state[name]), name  # learned alike, bit for bit
        assert torch.equal(_network(averaged)[name], state[f"average.{name[6:]}"]), name
    assert any(not torch.equal(w, _network(averaged)[k]) for k, w in _network(plain).items())
    for name in ("items.id", "items.count"):  # an item's own vector is as it was learned
        assert torch.equal(averaged.tensors()[name], plain.tensors()[name])


def test_probabilities_are_calibrated_for_the_weights_that_answer() -> None:
    plain, averaged = _learner(PLAIN), _learner(AVERAGED)
    line = "model.calibration.line"
    assert not torch.equal(plain.tensors()[line], averaged.tensors()[line])


def test_a_checkpoint_keeps_the_average_and_one_without_begins_it() -> None:
    whole, other = _learner(AVERAGED), _learner(AVERAGED, windows=0)
    other.load(whole.state())
    for learner in (whole, other):
        _learn(learner, 2)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor.nan_to_num(), other.state()[name].nan_to_num()), name

    plain = _learner(PLAIN)
    other.load(plain.state())
    for name, weight in _network(plain).items():
        assert torch.equal(_network(other)[name], weight), name


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_could_not_work_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"learner\.average is"):
        LearnerConfig(average=decay)
