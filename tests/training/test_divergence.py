"""When learning counts as having gone wrong; all numbers by hand."""

import pytest
import torch

from ray_rec.log.window import Window
from ray_rec.training.divergence import Diverged, DivergenceGuard, milder

ONE = torch.tensor(1.0)
BOTH = torch.tensor([10.0, 10.0])


def check(
    guard: DivergenceGuard, recall: float, click: float, weights: torch.Tensor = BOTH
) -> None:
    guard.check("window 3, step 1", torch.tensor([recall, click]), weights, ONE)


def test_a_loss_far_above_the_usual_one_is_an_explosion() -> None:
    """Usual 2, so anything above 4 · (1 + 2) = 12 explodes, and 12 itself does not."""
    guard = DivergenceGuard(factor=4.0, patience=3)
    for _ in range(5):
        check(guard, 2.0, 0.5)
    check(guard, 12.0, 0.5)
    guard = DivergenceGuard(factor=4.0, patience=3)
    for _ in range(5):
        check(guard, 2.0, 0.5)
    with pytest.raises(Diverged, match=r"window 3, step 1: the recall loss is 12.1, usually 2$"):
        check(guard, 12.1, 0.5)


def test_each_task_is_judged_by_its_own_past() -> None:
    guard = DivergenceGuard(factor=4.0, patience=1)
    check(guard, 9.0, 0.5)
    with pytest.raises(Diverged, match=r"the click loss is 7, usually 0.5"):
        check(guard, 9.0, 7.0)


def test_the_first_steps_are_not_judged_but_must_be_finite() -> None:
    guard = DivergenceGuard(factor=4.0, patience=2)
    check(guard, 1.0, 1.0)
    check(guard, 100.0, 1.0)
    with pytest.raises(Diverged, match="not finite"):
        check(guard, float("nan"), 1.0)
    with pytest.raises(Diverged, match="not finite"):
        guard.check("here", torch.tensor([1.0, 1.0]), BOTH, torch.tensor(float("inf")))


def test_a_task_without_rows_says_nothing() -> None:
    guard = DivergenceGuard(factor=4.0, patience=1)
    check(guard, 1.0, 0.5)
    only_clicks = torch.tensor([0.0, 10.0])
    check(guard, float("nan"), 0.5, only_clicks)
    check(guard, 1000.0, 0.5, only_clicks)
    with pytest.raises(Diverged, match=r"recall loss is 1e\+03, usually 1$"):
        check(guard, 1000.0, 0.5)


def test_a_loaded_guard_judges_alike() -> None:
    guard, other = (DivergenceGuard(factor=4.0, patience=2) for _ in range(2))
    for _ in range(2):
        check(guard, 2.0, 0.5)
    other.load(guard.state())
    with pytest.raises(Diverged, match="usually 2"):
        check(other, 13.0, 0.5)


def test_what_fails_leaves_the_usual_loss_as_it_was() -> None:
    guard = DivergenceGuard(factor=4.0, patience=1)
    check(guard, 1.0, 1.0)
    before = {name: tensor.clone() for name, tensor in guard.state().items()}
    with pytest.raises(Diverged):
        check(guard, 50.0, 1.0)
    assert all(torch.equal(guard.state()[name], tensor) for name, tensor in before.items())


def test_a_window_is_tried_milder_once_and_then_set_aside() -> None:
    first = milder(Window(4, {"events": {0: (1, 2)}}), 0.1)
    assert (first.rate_scale, first.set_aside) == (0.1, False)
    second = milder(first, 0.1)
    assert second.set_aside
    assert second.ranges == {"events": {0: (1, 2)}}
