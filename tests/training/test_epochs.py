"""Several passes over a past: every row once a pass, in steps of like length, the same again."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch

from ray_rec.features.examples import HELD_OUT_STEP
from ray_rec.training.config import LearnerConfig
from ray_rec.training.course import Stretch
from ray_rec.training.epochs import num_steps, shuffled, study
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments
from tests.model import toy


def rows_of(num: int) -> pa.Table:
    """Rows of 1 to 7 tokens."""
    drawn = np.random.default_rng(0).integers(1, 8, num).tolist()
    return toy.table([toy.row(range(size), [9], offset=at) for at, size in enumerate(drawn)])


def test_a_pass_takes_every_row_once_and_those_of_like_length_together() -> None:
    rows = rows_of(50)
    made = shuffled(rows, 8, 0)
    steps, offsets = made["step"].to_numpy(), made["offset"].to_pylist()
    assert sorted(offsets) == list(range(50))
    assert np.bincount(steps).tolist().count(8) == 6
    assert sorted(set(steps.tolist())) == list(range(num_steps(50, 8)))
    assert (np.diff(steps) >= 0).all()
    length = np.array([len(tokens) for tokens in made["token_item"].to_pylist()])
    spread = [length[steps == step] for step in range(7)]
    ordered = sorted(spread, key=lambda group: (group.min(), group.max()))
    for one, other in pairwise(ordered):
        assert one.max() <= other.min()


def test_passes_differ_and_a_pass_is_the_same_again_in_whatever_order_its_rows_come() -> None:
    rows = rows_of(50)
    first, second = shuffled(rows, 8, 0), shuffled(rows, 8, 1)
    assert first["offset"].to_pylist() != second["offset"].to_pylist()
    mixed = rows.take(np.random.default_rng(1).permutation(50))
    again = shuffled(mixed, 8, 0)
    assert again["offset"].to_pylist() == first["offset"].to_pylist()
    assert again["step"].to_pylist() == first["step"].to_pylist()


def test_held_out_rows_are_left_out() -> None:
    rows = rows_of(20)
    held = pa.array([at % 2 == 0 for at in range(20)])
    rows = rows.set_column(rows.schema.get_field_index("held_out"), "held_out", held)
    made = shuffled(rows, 8, 0)
    assert sorted(made["offset"].to_pylist()) == list(range(1, 20, 2))
    assert HELD_OUT_STEP not in made["step"].to_pylist()


def test_several_passes_learn_what_one_does_not_and_count_once() -> None:
    config = LearnerConfig(rows_per_step=16, lr=1e-2)
    made = toy.window(0, toy.ring_rows(200, seed=1))
    told: dict[int, Metrics] = {}
    learner = Learner(toy.PLAIN, config)
    learner.observe(made.items, toy.text_vectors())
    study(learner, made, [1.0, 7.0, 28.0], 16, 6, told.__setitem__)
    assert learner.steps == 6 * 13  # 200 rows are 13 steps
    assert list(told) == [1, 2, 3, 4, 5, 6]
    assert told[6].summary()["recall_loss"] < 0.6 * told[1].summary()["recall_loss"]
    targets = [item for row in made.examples["target_item"].to_pylist() for item in row]
    counts = learner.tensors()["items.count"]
    assert counts.tolist() == np.bincount(targets, minlength=toy.NUM_ITEMS).tolist()


def test_each_query_is_asked_with_the_popularity_of_its_own_time() -> None:
    # With nothing learned yet but popularity, a loss is that of the moment of its query.
    plain = replace(toy.PLAIN, blocks=1)
    early, late = toy.popularity(seed=4), toy.popularity(seed=5)
    moments = Moments(np.array([0, toy.NOW_MS]), np.stack([early, late]))

    def loss(at_ms: int, moments: Moments) -> float:
        learner = Learner(plain, LearnerConfig(rows_per_step=16))
        learner.observe(toy.items(), toy.text_vectors())
        asked = [row | {"query_ts": [at_ms]} for row in toy.ring_rows(16, seed=2)]
        window = toy.window(0, asked)
        found = learner.learn(window, window.examples, 1, stretch=Stretch(moments, 0.0, 1.0))
        return found.summary()["recall_loss"]

    both = [loss(toy.NOW_MS - 1, moments), loss(toy.NOW_MS, moments)]
    assert both == [
        loss(toy.NOW_MS - 1, Moments.once(early)),
        loss(toy.NOW_MS, Moments.once(late)),
    ]
    assert both[0] != both[1]
    assert torch.isfinite(torch.tensor(both)).all()
