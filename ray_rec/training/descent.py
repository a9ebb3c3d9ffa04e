"""How the dense weights are moved: the optimizer, held to the version before, averaged."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ray_rec.model.servable import tensors_under
from ray_rec.training.averaging import Average
from ray_rec.training.config import LearnerConfig
from ray_rec.training.elastic import Elastic
from ray_rec.training.optimizer import ENCODER, dense_optimizer, load_optimizer, optimizer_state
from ray_rec.training.schedule import Rates

OPTIMIZER, STEPS = "optimizer.", "optimizer.steps"


class Descent:
    """Steps of the network and of an encoder that learns.

    Args:
        parameters: by name; those of an encoder begin with `ENCODER`.
        config: rates, clipping, penalty and decay.

    Attributes:
        steps: how many were taken.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: LearnerConfig) -> None:
        self._parameters, self._config = parameters, config
        self._optimizer = dense_optimizer(parameters, config)
        self.elastic = Elastic(parameters, config.elastic)
        network = {k: p for k, p in parameters.items() if not k.startswith(ENCODER)}
        self.average = Average(network, config.average)
        self.steps = 0
        self.zero_grad()  # a worker without rows adds these

    def zero_grad(self) -> None:
        """Begin a step."""
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._optimizer.zero_grad(set_to_none=False)

    def rest(self, parameters: Iterable[nn.Parameter]) -> None:
        """Pass over some in this step: what nothing was asked of, decay and momentum still move.

        What is shown closes in bursts, so hundreds of steps may be of one task alone.
        """
        for parameter in parameters:
            parameter.grad = None

    def grads(self) -> list[Tensor]:
        """Return the gradient of each parameter, to be summed over workers in place."""
        return [p.grad for p in self._parameters.values() if p.grad is not None]

    def clip(self) -> Tensor:
        """Bound the summed gradient; return its norm before that."""
        return torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._config.clip)

    def step(self, rates: Rates) -> None:
        """Move the weights."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * rates.network * rates.scale
        self._optimizer.step()
        self.elastic.pull(self._optimizer.param_groups)
        self.steps += 1
        self.average.step(self.steps)

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes, by flat names; the weights themselves are not in it."""
        kept = optimizer_state(self._parameters, self._optimizer)
        named = {f"{OPTIMIZER}{name}": tensor for name, tensor in kept.items()}
        return (
            {STEPS: torch.tensor(self.steps), **named} | self.elastic.state() | self.average.state()
        )

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, once the weights are those of then."""
        load_optimizer(self._parameters, self._optimizer, tensors_under(state, OPTIMIZER))
        self.steps = int(state[STEPS])
        self.elastic.load(state)
        self.average.load(state)
