"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from ray_rec.model.losses import binary_loss, click_loss, sampled_logits, softmax_loss

INF = float("inf")


def test_softmax_loss_is_minus_the_log_of_the_targets_share() -> None:
    # exp of the scores: 1 + 3 + 4 = 8; the second row leaves one out: 2 + 2 = 4
    candidates = torch.tensor([[1.0, 3.0, 4.0], [2.0, 2.0, 0.0]]).log()
    query = torch.tensor([0, 0, 1])
    target = torch.tensor([3.0, 4.0, 2.0]).log()
    got = softmax_loss(target, query, candidates)
    expected = torch.tensor([math.log(8 / 3), math.log(8 / 4), math.log(4 / 2)])
    torch.testing.assert_close(got, expected)


def test_an_item_drawn_with_certainty_is_not_corrected() -> None:
    scores = torch.tensor([[0.3, -1.0]])
    torch.testing.assert_close(sampled_logits(scores, torch.zeros(2)), scores)


def test_an_item_drawn_one_time_in_four_counts_four_times() -> None:
    scores = torch.tensor([[0.0]])
    weight = sampled_logits(scores, torch.tensor([0.25]).log()).exp()
    torch.testing.assert_close(weight, torch.tensor([[4.0]]))


def test_binary_loss_adds_the_target_and_the_mean_of_the_others() -> None:
    # softplus(0) = log 2; softplus(log 3) = log 4; -inf is nobody
    others = torch.tensor([[0.0, math.log(3), -INF], [-INF, -INF, -INF]])
    got = binary_loss(torch.tensor([0.0, 0.0]), torch.tensor([0, 1]), others)
    expected = torch.tensor([math.log(2) + (math.log(2) + math.log(4)) / 2, math.log(2)])
    torch.testing.assert_close(got, expected)


def test_binary_loss_has_no_gradient_where_nobody_stands() -> None:
    others = torch.tensor([[0.0, -INF]], requires_grad=True)
    torch.autograd.backward(binary_loss(torch.tensor([0.0]), torch.tensor([0]), others).sum())
    assert others.grad is not None
    assert others.grad.tolist() == [[0.5, 0.0]]


def test_click_loss_is_the_mean_over_outcomes() -> None:
    # sigmoid(log 3) = 3/4: -log(3/4) for a yes, -log(1/4) for a no
    logits = torch.full((2, 2), math.log(3))
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    got = click_loss(logits, labels)
    yes, no = math.log(4 / 3), math.log(4)
    assert got.tolist() == pytest.approx([(yes + no) / 2, yes])
