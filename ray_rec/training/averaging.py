"""An average of the weights over the last steps, which is what answers; learning goes on beside it.

The network alone: an item's own vector moves in few steps, its row-wise rate comes down by itself,
and an average would keep back what was just learned of a new one, at the cost of a second table.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ray_rec.model.servable import tensors_under

AVERAGE = "average."


class Average:
    """The exponential moving average of parameters, by their names; none with a decay of 0.

    After step t (from 1) it is d · average + (1 - d) · weights with d = min(decay, (1+t) / (10+t)),
    so that what the weights were drawn as is soon forgotten (Polyak and Juditsky 1992; the rise of
    d is that of TensorFlow's `ExponentialMovingAverage`).

    Args:
        parameters: which weights.
        decay: of the average, from 0 to below 1.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = dict(parameters) if decay else {}, decay
        self.weights: dict[str, Tensor] = {}
        self._begin()

    def step(self, number: int) -> None:
        """Take the weights after step `number` (from 1) into the average."""
        if not self._parameters:
            return
        decay = min(self._decay, (1 + number) / (10 + number))
        now = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.weights.values()), now, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters are the average."""
        raw = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._put(self.weights)
        yield
        self._put(raw)

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes."""
        return {f"{AVERAGE}{name}": weight for name, weight in self.weights.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave; where there was no average it begins as the weights."""
        self._begin()
        kept = tensors_under(state, AVERAGE)
        for name, weight in self.weights.items() if kept else ():
            weight.copy_(kept[name])

    def _begin(self) -> None:
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
