"""Early stopping of passes: those who are learned walk the ring onwards, held-out people back.

Two passes teach what both do, to stay near; then what is learned is wrong of those held out.
"""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ray_rec.log.window import Passes
from ray_rec.training.config import LearnerConfig
from ray_rec.training.course import Stretch
from ray_rec.training.epochs import num_steps, shuffled, targets
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.moments import Moments
from ray_rec.training.stopping import EarlyStopping
from ray_rec.training.workers import Workers
from tests.model import toy

CONFIG = LearnerConfig(rows_per_step=16, lr=1e-2)
PLANNED = Passes(times=6, first=0, until=1, of=6, patience=2)
MADE = toy.window(0, toy.ring_rows(96, seed=1))


class Run:
    """A learner that is stopped by people who walk back; what it was after each pass."""

    def __init__(self, planned: Passes = PLANNED, held_out: bool = True) -> None:
        torch.set_num_threads(1)
        self.passes, self.losses = planned, list[float]()
        self.learner = Learner(toy.PLAIN, CONFIG)
        self.learner.observe(MADE.items, toy.text_vectors())
        self.learner.count(targets(MADE.examples))
        self.known: list[dict[str, Tensor]] = []
        gate = Gate(toy.PLAIN, 32, 0.05)
        if held_out:
            gate.add(toy.table([_back(row) for row in toy.ring_rows(32, seed=9)]))
        self.stopping = EarlyStopping(gate, Workers())

    def go_on(self, most: int = 6) -> None:
        """Take passes until they are over, or so many are done."""
        while not self.passes.is_over and self.passes.at < most:
            before = self.passes.at
            moments = Moments.through([MADE], toy.NUM_ITEMS, [1.0, 7.0, 28.0])
            stretch = Stretch(moments, before / 6, (before + 1) / 6)
            rows = shuffled(MADE.examples, 16, before)
            steps = num_steps(rows.num_rows, 16)
            self.learner.learn(replace(MADE, number=before), rows, steps, stretch=stretch)
            self.known.append(self.learner.state())
            done = replace(self.passes, at=before + 1)
            self.passes = self.stopping.after(done, self.learner, toy.POPULARITY)
            self.losses.append(self.stopping.loss)

    def is_as_after(self, number: int) -> bool:
        wanted = self.known[number - 1]
        found = self.learner.state()
        return wanted.keys() == found.keys() and all(
            torch.equal(found[name].nan_to_num(), wanted[name].nan_to_num()) for name in wanted
        )


def _back(row: dict[str, object]) -> dict[str, object]:
    tokens = row["token_item"]
    assert isinstance(tokens, list)
    return row | {"target_item": [(tokens[-1] - 1) % toy.NUM_ITEMS], "held_out": True}


def test_two_passes_that_are_worse_end_them_and_the_best_stays() -> None:
    run = Run()
    run.go_on()
    assert len(run.losses) == 4
    first, best, third, fourth = run.losses
    assert best < first
    assert best < third < fourth
    assert (run.passes.at, run.passes.of, run.passes.ended) == (4, 6, True)
    assert run.is_as_after(2)
    assert not run.is_as_after(4)
    assert run.stopping.state() == {}, "what the best knew is not kept twice"


def test_passes_that_are_all_taken_leave_the_best_too() -> None:
    run = Run(replace(PLANNED, patience=6))
    run.go_on()
    assert len(run.losses) == 6
    assert not run.passes.ended
    assert run.passes.is_over
    assert run.is_as_after(2)


def test_stopped_on_the_way_it_comes_to_the_same() -> None:
    run = Run()
    run.go_on(most=3)
    kept = run.learner.state() | run.stopping.state()
    other = Run(run.passes)
    other.learner.load(kept)
    other.stopping.load(kept)
    assert other.stopping.state().keys() == run.stopping.state().keys()
    for each in (run, other):
        each.go_on()
    assert len(other.losses) == 1, "the third pass counts as worse"
    assert run.is_as_after(2)
    other.known = run.known
    assert other.is_as_after(2)


def test_what_an_earlier_run_came_to_is_forgotten() -> None:
    """Its lowest loss would else end the passes over what came since."""
    run = Run()
    run.stopping.load({"stopping.loss": torch.tensor(0.0), "stopping.worse": torch.tensor(1)})
    run.go_on()
    assert run.passes.at == 4


def test_without_held_out_people_the_last_pass_stays(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(held_out=False)
    with caplog.at_level(logging.WARNING):
        run.go_on()
    assert run.passes.at == 6
    assert run.is_as_after(6)
    assert "no held-out query" in caplog.text
