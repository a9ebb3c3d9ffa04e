"""A trainer that failed is started anew while windows are learned, or its controller died."""

from dataclasses import replace

import pytest
from ray.exceptions import ActorDiedError
from ray.train import TrainingFailedError

from ray_rec.config import RunConfig
from ray_rec.training import stream
from ray_rec.training.worker import WorkerSetup


class FailingTrainer:
    """Stands for Ray's TorchTrainer: its first runs end in the failures given."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.runs = list(failures), 0

    def fit(self) -> None:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)


def fit(trainer: FailingTrainer, patched: pytest.MonkeyPatch, max_failures: int) -> None:
    plain = RunConfig()
    config = replace(plain, training=replace(plain.training, max_failures=max_failures))
    patched.setattr(stream, "_trainer", lambda _: trainer)
    stream._fit_while_it_moves(WorkerSetup(config, None, None), stream._Tally([]))


def test_a_controller_may_die_before_the_first_window(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = FailingTrainer(ActorDiedError(), ActorDiedError())
    fit(trainer, monkeypatch, max_failures=2)
    assert trainer.runs == 3


def test_but_not_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = FailingTrainer(*(ActorDiedError() for _ in range(5)))
    with pytest.raises(ActorDiedError):
        fit(trainer, monkeypatch, max_failures=2)
    assert trainer.runs == 3


def test_workers_that_failed_too_often_in_vain_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = FailingTrainer(TrainingFailedError())
    with pytest.raises(TrainingFailedError):
        fit(trainer, monkeypatch, max_failures=2)
    assert trainer.runs == 1
