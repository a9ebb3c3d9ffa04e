"""Early stopping of several passes: how each did on people nobody learned from, and what stays.

Rates come down to 0 over all the passes that were planned (`schedule.one_cycle`). What an earlier
one knew was learned at rates that were still high, and is not what so few passes would give if no
more had been planned. So stopping bounds the cost of too many passes and of learning by heart; it
does not choose `training.passes`.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ray_rec.features.arrays import Float32
from ray_rec.log.window import Passes
from ray_rec.model.servable import tensors_under
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.workers import Workers

_LOSS, _WORSE, _BEST = "stopping.loss", "stopping.worse", "stopping.best."

_log = logging.getLogger(__name__)


class EarlyStopping:
    """The best pass so far. Each worker has one; they hear the same loss, and decide alike.

    Args:
        gate: whose held-out queries a pass is measured by, the newest `training.gate_queries`.
        workers: the process group.

    Attributes:
        loss: of the pass measured last, in nats a target; NaN where there was nothing to ask.
    """

    def __init__(self, gate: Gate, workers: Workers) -> None:
        self._gate, self._workers = gate, workers
        self.loss = float("nan")
        self._forget()

    def _forget(self) -> None:
        self._lowest, self._worse, self._best = float("inf"), 0, dict[str, Tensor]()

    def after(self, passes: Passes, learner: Learner, popularity: Float32) -> Passes:
        """Measure a pass that is done; return how far the passes have come, ended if they are.

        They end when the last `passes.patience` were not better than the best before them. Once
        they are over, early or not, the learner is again what it was after the best one.

        Args:
            passes: of the last window of a pass.
            learner: what is known after it; texts are brought up to an encoder that learns.
            popularity: float32 [num_items, P], of the end: as the gate's.
        """
        if passes.number == 1:
            self._forget()
        learner.renew_texts()
        loss = self._gate.loss(learner.tensors(), popularity, passes.first)  # all asked the same
        if loss is None:
            _log.warning("no held-out query tells which pass is the best; the last one stays")
            return passes
        self.loss = self._workers.mean(loss)
        self._worse += 1
        if self.loss < self._lowest:
            self._lowest, self._worse, self._best = self.loss, 0, learner.state()
        if self._worse >= passes.patience:
            passes = replace(passes, ended=True)
        if passes.is_over and self._best:
            learner.load(self._best)
            self._forget()
        return passes

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes, by flat names; the best pass takes as much as the learner."""
        if not self._best:
            return {}
        count = {_LOSS: torch.tensor(self._lowest, dtype=torch.float64)}
        count |= {_WORSE: torch.tensor(self._worse)}
        return count | {f"{_BEST}{name}": tensor for name, tensor in self._best.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, among the names of others."""
        self._forget()
        if _LOSS in state:
            self._lowest, self._worse = float(state[_LOSS]), int(state[_WORSE])
            self._best = tensors_under(state, _BEST)
