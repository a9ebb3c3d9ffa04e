"""A model that has learned for a moment, and the version it would publish."""

from collections.abc import Callable

import pytest
import torch

from ray_rec.model.servable import Servable
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy


@pytest.fixture(scope="session")
def learner() -> Learner:
    """Items 0..29 were learned from, the others never."""
    torch.set_num_threads(1)
    made = Learner(toy.PLAIN, LearnerConfig(warmup_steps=1))
    made.observe(toy.items(), toy.text_vectors())
    rows = [*toy.ring_rows(64, seed=1, num_items=30), *toy.click_rows(64, seed=2)]
    for at, row in enumerate(rows):
        row["step"] = at // 16
    made.learn(toy.window(0, rows), toy.table(rows), 8)
    return made


@pytest.fixture(scope="session")
def servable(learner: Learner) -> Servable:
    return learner.servable()


@pytest.fixture(scope="session")
def tensors(learner: Learner) -> Callable[[], dict[str, torch.Tensor]]:
    return learner.export
