"""How much each of the two tasks counts in a step's loss: fixed, scheduled, or learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ray_rec.model.config import ModelConfig
from ray_rec.model.losses import LossSums


class TaskWeights(nn.Module):
    """The one loss of a step out of the sums of both tasks: beta · recall + alpha · click.

    With `model.task_weights`

    - `fixed`, alpha and beta are those of the configuration;
    - `scheduled`, they go in a straight line from there to `alpha_end` and `beta_end` over the
      first `weight_steps` steps of the optimizer;
    - `uncertainty`, each task has a learned log-variance s and its mean loss l counts as
      exp(-s) · l + s / 2, times its alpha or beta (Kendall, Gal and Cipolla 2018, for likelihoods
      of classes). It is least where exp(s) = 2 · l: a task weighs the less the larger its loss is.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._config = config
        self.log_variance = nn.ParameterList()  # recall, click; each its own, so that one can stay
        if config.task_weights == "uncertainty":
            self.log_variance.extend(nn.Parameter(torch.zeros(())) for _ in range(2))

    def at(self, step: int) -> tuple[float, float]:
        """Return (beta, alpha) of an optimizer step, from 0."""
        config = self._config
        if config.task_weights != "scheduled":
            return config.beta, config.alpha
        done = min(1.0, step / config.weight_steps)
        return (
            config.beta + done * (config.beta_end - config.beta),
            config.alpha + done * (config.alpha_end - config.alpha),
        )

    def forward(self, sums: LossSums, total: Tensor, step: int) -> Tensor:
        """Return a worker's part of a step's loss; the parts add up to that of the whole step.

        Args:
            sums: of this worker's rows.
            total: rows of each task over all workers, recall and click, [2].
            step: of the optimizer, from 0.
        """
        recall, click = self._terms(sums)
        beta, alpha = self.at(step)
        rows = total.clamp(min=1)
        return beta * recall / rows[0] + alpha * click / rows[1]

    def _terms(self, sums: LossSums) -> tuple[Tensor, Tensor]:
        if not len(self.log_variance):
            return sums.recall, sums.click
        recall, click = self.log_variance
        return (
            torch.exp(-recall) * sums.recall + sums.recall_weight * recall / 2,
            torch.exp(-click) * sums.click + sums.click_weight * click / 2,
        )

    def idle(self, total: Sequence[float]) -> list[nn.Parameter]:
        """Return the weights of tasks without rows in `total`, recall and click, [2]."""
        return [s for s, rows in zip(self.log_variance, total, strict=False) if not rows]
