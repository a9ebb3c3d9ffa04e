"""Simulated births: which items are put back, how far, and that the learner does as told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemSlice, own_share
from ray_rec.training.births import younger
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy

ROWS = np.arange(4_000)


def items(count: float) -> ItemSlice:
    nothing = torch.zeros(len(ROWS), 1)
    share = own_share(torch.full((len(ROWS),), count), 5.0)
    return ItemSlice(
        id=nothing,
        share=share,
        text=nothing,
        text_of=torch.from_numpy(ROWS),
        popularity=nothing[None],
        price=nothing[:, 0],
        groups=torch.zeros(len(ROWS), 2, dtype=torch.int64),
    )


def test_a_share_of_the_items_has_fewer_events_than_it_had() -> None:
    before = items(20.0)  # a = 20/25
    after = younger(before, ROWS, number=3, step=7, share=0.25).share / before.share
    born = after < 1
    assert born.double().mean() == pytest.approx(0.25, abs=0.03)
    # u is uniform: the mean is 1/2, and half of them lie below it
    assert after[born].mean() == pytest.approx(0.5, abs=0.03)
    assert (after[born] < 0.5).double().mean() == pytest.approx(0.5, abs=0.06)
    # u = 1/2 of a = 4/5 is the weight of n' = 1/2 * 20 * 5 / (5 + 1/2 * 20) = 10/3 events
    assert own_share(torch.tensor(10 / 3), 5.0) == pytest.approx(0.5 * 4 / 5)


def test_an_item_is_drawn_by_its_row_and_anew_in_each_step() -> None:
    first = younger(items(20.0), ROWS, 3, 7, 0.5).share
    again = younger(items(20.0), ROWS, 3, 7, 0.5).share
    later = younger(items(20.0), ROWS, 3, 8, 0.5).share
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    some = replace(items(20.0), share=items(20.0).share[100:200])
    assert torch.equal(younger(some, ROWS[100:200], 3, 7, 0.5).share, first[100:200])


def test_none_are_born_unless_asked_for_and_what_is_new_stays_new() -> None:
    before = items(20.0)
    assert younger(before, ROWS, 3, 7, 0.0) is before
    assert (younger(items(0.0), ROWS, 3, 7, 1.0).share == 0).all()
    assert ModelConfig().births == 0
    with pytest.raises(ConfigError, match=r"model.births is 1.5; it must be from 0 to 1"):
        ModelConfig(births=1.5)


def test_a_learner_puts_back_what_it_has_learned_from() -> None:
    plain, born = (Learner(replace(toy.PLAIN, births=share), LearnerConfig()) for share in (0, 1))
    for number in range(2):
        rows = toy.ring_rows(16, seed=number)  # one step
        window = toy.window(number, rows)
        losses = []
        for learner in (plain, born):
            if not number:
                learner.observe(window.items, toy.text_vectors())
            losses.append(learner.learn(window, toy.table(rows), 1).summary()["recall_loss"])
        assert (losses[0] == losses[1]) == (number == 0)  # all items are new in the first
