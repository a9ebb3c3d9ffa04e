"""How the dense weights are moved: optimizer and schedule, held to the version before, averaged."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ray_rec.model.servable import tensors_under
from ray_rec.training.averaging import Average
from ray_rec.training.config import LearnerConfig
from ray_rec.training.elastic import Elastic
from ray_rec.training.optimizer import (
    ENCODER,
    dense_optimizer,
    left,
    load_optimizer,
    optimizer_state,
)

OPTIMIZER = "optimizer."


class Descent:
    """Steps of the network and of an encoder that learns.

    Args:
        parameters: by name; those of an encoder begin with `ENCODER`.
        config: rates, penalty and decay.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: LearnerConfig) -> None:
        self._parameters, self._config = parameters, config
        self._optimizer, self._schedule = dense_optimizer(parameters, config)
        self.elastic = Elastic(parameters, config.elastic)
        network = {k: p for k, p in parameters.items() if not k.startswith(ENCODER)}
        self.average = Average(network, config.average)
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)  # a worker without rows adds these

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self._schedule.last_epoch

    @property
    def left(self) -> float:
        """What the schedule leaves of the rates."""
        return left(self._config, self.steps)

    def zero_grad(self) -> None:
        """Begin a step."""
        self._optimizer.zero_grad(set_to_none=False)

    def grads(self) -> list[Tensor]:
        """Return the gradient of each parameter, to be summed over workers in place."""
        return [p.grad for p in self._parameters.values() if p.grad is not None]

    def clip(self) -> Tensor:
        """Bound the summed gradient; return its norm before that."""
        return torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._config.clip)

    def step(self, rate_scale: float) -> None:
        """Move the weights; `rate_scale` is a factor on the rates of this step alone."""
        for group in self._optimizer.param_groups:
            group["lr"] *= rate_scale  # the schedule sets it anew for the next step
        self._optimizer.step()
        self.elastic.pull(self._optimizer.param_groups)
        self._schedule.step()
        self.average.step(self.steps)

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes, by flat names; the weights themselves are not in it."""
        kept = optimizer_state(self._parameters, self._optimizer, self._schedule)
        named = {f"{OPTIMIZER}{name}": tensor for name, tensor in kept.items()}
        return named | self.elastic.state() | self.average.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, once the weights are those of then."""
        kept = tensors_under(state, OPTIMIZER)
        load_optimizer(self._parameters, self._optimizer, self._schedule, kept)
        self.elastic.load(state)
        self.average.load(state)
