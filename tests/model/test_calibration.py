"""Probabilities drawn to what happened, against what the equations say by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ray_rec.model.calibration import PRIOR, Calibration
from tests.model import toy

ONE = replace(toy.PLAIN, outcomes=("purchase",), calibration="platt")


def _line(calibration: Calibration) -> tuple[float, float]:
    scale, shift = calibration.line[0].tolist()
    return scale, shift


def _column(*values: float, times: int = 1) -> Tensor:
    return torch.tensor(values * times)[:, None]


def test_it_begins_as_the_identity_and_none_has_nothing_to_learn() -> None:
    logits = torch.tensor([[0.3, -2.0, 5.0]])
    assert torch.equal(Calibration(replace(toy.PLAIN, calibration="platt"))(logits), logits)
    none = Calibration(replace(toy.PLAIN, calibration="none"))
    assert torch.equal(none(logits), logits)
    assert none.state_dict() == {}


def test_a_line_is_found_again_once_there_is_enough_to_see() -> None:
    # rates as the line 0.5 · logit - 1 has them: 1 / (1 + exp(0.5)) at 1, 1 / (1 + exp(1.5)) at -1
    calibration = Calibration(ONE)
    calibration.learn(_column(1.0, -1.0, times=10_000), _column(0.37754, 0.18243, times=10_000))
    assert _line(calibration) == pytest.approx((0.5, -1.0), abs=0.01)
    p = torch.sigmoid(calibration(_column(1.0, -1.0)))[:, 0].tolist()
    assert p == pytest.approx([0.37754, 0.18243], abs=2e-3)


def test_a_little_evidence_is_weighed_against_the_identity() -> None:
    # all logits 0, so the shift alone is judged: PRIOR · b + n · (sigmoid(b) - rate) = 0;
    # n = 8 · PRIOR and b = -log 3, whose sigmoid is 1/4: rate = 1/4 - log(3) / 8
    calibration, num = Calibration(ONE), int(8 * PRIOR)
    rate = 1 / 4 - math.log(3) / 8
    calibration.learn(torch.zeros(num, 1), torch.full((num, 1), rate))
    assert _line(calibration) == pytest.approx((1.0, -math.log(3)), abs=1e-4)


def test_two_halves_come_to_what_the_whole_does() -> None:
    logits = torch.linspace(-2, 2, 400)[:, None]
    labels = torch.sigmoid(0.7 * logits - 0.5)
    whole, halves = Calibration(ONE), Calibration(ONE)
    whole.learn(logits, labels)
    for half in range(2):
        halves.learn(logits[half::2], labels[half::2])
    assert _line(halves) == pytest.approx(_line(whole), abs=0.02)


def test_each_outcome_has_a_line_of_its_own() -> None:
    calibration = Calibration(replace(ONE, outcomes=("click", "purchase")))
    logits = torch.zeros(2_000, 2)
    labels = torch.stack([torch.full((2_000,), 0.5), torch.full((2_000,), 0.1)], dim=1)
    calibration.learn(logits, labels)
    assert torch.sigmoid(calibration(logits))[0].tolist() == pytest.approx([0.5, 0.1], abs=0.03)


def test_a_head_that_is_wrong_with_certainty_and_an_outcome_that_never_happens() -> None:
    calibration = Calibration(ONE)
    for _ in range(20):
        calibration.learn(_column(40.0, -40.0, times=500), _column(0.0, 0.0, times=500))
    p = torch.sigmoid(calibration(_column(40.0)))
    assert torch.isfinite(calibration.certainty).all()
    assert 0 <= float(p) < 0.1
