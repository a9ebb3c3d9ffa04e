"""The gate: finite, and not worse on held-out people, asked of a part of the catalogue."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ray_rec.features.histories import History
from ray_rec.training import held_out as module
from ray_rec.training.config import LearnerConfig
from ray_rec.training.gate import Gate
from ray_rec.training.held_out import HeldOut, Panel
from ray_rec.training.learner import Learner
from tests.model import toy

Tensors = dict[str, torch.Tensor]
POPULARITY = toy.popularity()


def learned(windows: int, num_items: int = toy.NUM_ITEMS) -> Tensors:
    """Tensors of a model that has seen people walk round the ring."""
    learner = Learner(toy.PLAIN, LearnerConfig(warmup_steps=1, rows_per_step=16))
    learner.observe(toy.items(0, num_items), toy.text_vectors(num_items))
    for number in range(windows):
        rows = toy.ring_rows(64, seed=number)
        learner.learn(toy.window(number, rows, num_items), toy.table(rows), 4)
    return learner.export()


@pytest.fixture(scope="module")
def fresh() -> Tensors:
    return learned(0)


@pytest.fixture(scope="module")
def taught() -> Tensors:
    return learned(12)


def gate_of(rows: Sequence[dict[str, Any]], margin: float = 0.05, num_queries: int = 32) -> Gate:
    gate = Gate(toy.PLAIN, num_queries, margin)
    gate.add(toy.table([dict(row, held_out=True) for row in rows]))
    return gate


RING = toy.ring_rows(32, seed=99)


def test_what_is_better_passes_and_what_is_worse_does_not(fresh: Tensors, taught: Tensors) -> None:
    gate = gate_of(RING)
    up = gate.judge(taught, fresh, POPULARITY, 1)
    assert up.passed
    assert up.metrics["candidate_loss"] < up.metrics["incumbent_loss"] - 0.5
    down = gate.judge(fresh, taught, POPULARITY, 1)
    assert not down.passed
    assert "over the margin of 5%" in down.reason
    assert down.metrics["candidate_loss"] == up.metrics["incumbent_loss"]
    assert down.metrics["queries"] == 32
    generous = gate_of(RING, margin=100.0)
    assert generous.judge(fresh, taught, POPULARITY, 1).passed


def test_the_first_version_and_one_without_questions_pass(fresh: Tensors) -> None:
    assert gate_of(RING).judge(fresh, None, POPULARITY, 1).reason == "first version"
    assert "no held-out user" in Gate(toy.PLAIN, 8, 0.05).judge(fresh, None, POPULARITY, 1).reason
    shown = gate_of([toy.row([1], shown=[(2, 0)])])
    assert "no held-out query" in shown.judge(fresh, None, POPULARITY, 1).reason


@pytest.mark.parametrize("name", ["items.id", "items.count", "model.trunk.start", "items.text"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(name: str, value: float, fresh: Tensors) -> None:
    broken = {**fresh, name: fresh[name].clone()}
    broken[name].view(-1)[-1] = value
    verdict = gate_of(RING).judge(broken, None, POPULARITY, 1)
    assert not verdict.passed
    assert "not finite" in verdict.reason


def test_an_unknown_price_is_no_fault(fresh: Tensors) -> None:
    unknown = {**fresh, "items.price": torch.full((toy.NUM_ITEMS,), math.nan)}
    assert gate_of(RING).judge(unknown, None, POPULARITY, 1).passed


def test_a_loss_that_is_not_finite_fails(fresh: Tensors) -> None:
    popularity = POPULARITY.copy()
    popularity[3] = math.nan
    verdict = gate_of(RING).judge(fresh, None, popularity, 1)
    assert not verdict.passed
    assert verdict.reason == "the candidate's held-out loss is not finite"


def test_items_that_the_incumbent_does_not_know_are_left_out(taught: Tensors) -> None:
    """New items stand in histories and are targets: both sides hear what the older one knows."""
    grown = learned(12, num_items=toy.NUM_ITEMS + 5)
    new = toy.NUM_ITEMS + 2
    heard = toy.row([3, new, 4], [5])
    gate = gate_of([heard, toy.row([3, 4], [new], offset=1)])
    verdict = gate.judge(grown, taught, toy.popularity(toy.NUM_ITEMS + 5), 1)
    times = [heard["token_ts"][0], heard["token_ts"][2]]
    known = gate_of([{**toy.row([3, 4], [5]), "token_ts": times}])
    wanted = known.judge(taught, None, POPULARITY, 1).metrics["candidate_loss"]
    assert verdict.metrics["incumbent_loss"] == pytest.approx(wanted, abs=1e-5)
    only_new = gate_of([toy.row([3, 4], [new])])
    assert "no held-out query" in only_new.judge(grown, taught, POPULARITY, 1).reason


def test_the_newest_questions_are_asked() -> None:
    rows = [dict(toy.row([at], [at + 1], offset=at), query_ts=[1000 + at]) for at in range(6)]
    asked = HeldOut.newest(toy.table(rows), 2)
    assert asked.at_ms.tolist() == [1004, 1005]
    assert asked.target.tolist() == [5, 6]
    assert [history.item.tolist() for history in asked.histories] == [[4], [5]]


def test_what_is_not_known_is_not_heard() -> None:
    three = np.array([1, 2, 3])
    history = History(np.array([7, 2, 9], np.int32), three.astype(np.int8), three)
    asked = HeldOut([history], np.array([5]), np.array([0, 0]), np.array([8, 1])).below(8)
    assert asked.histories[0].item.tolist() == [7, 2]
    assert asked.histories[0].ts.tolist() == [1, 2]
    assert asked.target.tolist() == [1]
    assert asked.items().tolist() == [1, 2, 7]


def test_a_small_catalogue_is_asked_whole(taught: Tensors) -> None:
    asked = HeldOut.newest(toy.table(RING), 32)
    panel = Panel.draw(asked, POPULARITY, toy.PLAIN, 1)
    assert panel.rows.tolist() == list(range(toy.NUM_ITEMS))
    assert not panel.log_weight.any()


def test_a_draw_stands_for_the_catalogue(taught: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 items 24 are drawn: each estimate is near the truth, their mean nearer."""
    rows = [toy.row([1, 2], [3]), toy.row([50, 51, 52], [53], offset=1)]
    tensors, popularity = learned(3, num_items=200), toy.popularity(200)
    asked = HeldOut.newest(toy.table(rows), 8)
    exact = Panel.draw(asked, popularity, toy.PLAIN, 0).recall_loss(tensors, toy.PLAIN)
    monkeypatch.setattr(module, "JUDGED_ITEMS", 24)
    panels = [Panel.draw(asked, popularity, toy.PLAIN, number) for number in range(60)]
    assert all(len(panel.rows) <= 24 + 7 for panel in panels)
    losses = [panel.recall_loss(tensors, toy.PLAIN) for panel in panels]
    assert np.std(losses) > 0
    assert np.mean(losses) == pytest.approx(exact, abs=0.05)
    own = np.searchsorted(panels[0].rows, [1, 2, 3, 50, 51, 52, 53])
    assert panels[0].rows[own].tolist() == [1, 2, 3, 50, 51, 52, 53]
    assert not panels[0].log_weight[own].any()
    again = Panel.draw(asked, popularity, toy.PLAIN, 0)
    assert again.rows.tolist() == panels[0].rows.tolist()


def test_the_loss_is_that_of_the_whole_softmax() -> None:
    """Without learning or history only popularity tells: p = softmax(w · log counts)."""
    model = replace(toy.PLAIN, dim=16)
    learner = Learner(model, LearnerConfig())
    learner.observe(toy.items(0, 3), toy.text_vectors(3))
    tensors = learner.export()
    tensors["model.recall.scale"].zero_()
    tensors["model.recall.popularity"][:] = torch.tensor([0.0, 0.0, 1.0])
    popularity = np.log([[1, 1, 2], [1, 1, 5], [1, 1, 3]]).astype(np.float32)
    asked = HeldOut.newest(toy.table([toy.row([], [1])]), 8)
    loss = Panel.draw(asked, popularity, model, 0).recall_loss(tensors, model)
    assert loss == pytest.approx(-math.log(5 / (2 + 5 + 3)), abs=1e-5)


def test_the_oldest_questions_leave() -> None:
    gate = Gate(toy.PLAIN, num_queries=2, margin=0.05)
    for at in range(5):
        gate.add(toy.table([toy.row([at], [at], offset=10 * at + n) for n in range(3)]))
    assert gate.rows is not None
    assert gate.rows["offset"].to_pylist() == [21, 22, 30, 31, 32, 40, 41, 42]
