"""From rows to a step: places among its items, and which tokens are not told."""

import numpy as np
import torch

from ray_rec.features.examples import collate
from ray_rec.features.sequence_augment import MASKED
from ray_rec.model.step import Step
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Draw
from ray_rec.training.steps import make_step
from tests.model import toy


def _step(*tokens: list[int]) -> tuple[list[int], Step]:
    rows = toy.table([toy.row(items, [9], offset=at) for at, items in enumerate(tokens)])
    drawn = Draw(np.array([2]), np.zeros(1, np.float32))
    once = Moments.once(toy.popularity())
    made = make_step(collate(rows, 3), drawn, once, torch.device("cpu"), torch.float32)
    return made[0].tolist(), made[1]


def test_padding_is_told_and_masks_are_not() -> None:
    rows, step = _step([5, MASKED, 7], [5])
    assert rows == [0, 2, 5, 7, 9]
    assert step.queries.token.tolist() == [[2, 0, 3], [2, 0, 0]]
    assert step.queries.told is not None
    assert step.queries.told.tolist() == [[True, False, True], [True, True, True]]


def test_without_masks_all_is_told() -> None:
    assert _step([5, 6, 7], [5])[1].queries.told is None


def test_each_query_knows_the_moment_it_is_asked_in() -> None:
    rows = toy.table([toy.row([5], [9]) | {"query_ts": [at]} for at in (3, 7, 9)])
    moments = Moments(np.array([2, 7]), np.stack([toy.popularity(seed=s) for s in (1, 2)]))
    drawn = Draw(np.array([2]), np.zeros(1))
    _, step = make_step(collate(rows, 3), drawn, moments, torch.device("cpu"), torch.float32)
    assert step.queries.moment.tolist() == [0, 1, 1]
