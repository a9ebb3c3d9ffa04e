"""A penalty on how far weights go from the version before: what was known is given up slowly."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ray_rec.model.servable import tensors_under

ELASTIC = "elastic."


class Elastic:
    """Draws weights w to w', which they were when last settled, as strength · |w - w'|² would.

    It is elastic weight consolidation with all weights of like importance (Kirkpatrick et al. 2017
    without Fisher's information; L2-SP of Li, Grandvalet and Davoine 2018). Its gradient takes the
    way of AdamW's decay (Loshchilov and Hutter 2019): past what the optimizer scales gradients by,
    so that it means the same for all weights. Before the first version there is nothing to hold to.

    Args:
        parameters: which weights, by name.
        strength: of the penalty; none with 0.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], strength: float) -> None:
        self._parameters, self._strength = dict(parameters) if strength else {}, strength
        self._settled: dict[nn.Parameter, Tensor] = {}

    def settle(self) -> None:
        """Hold to the weights as they are now."""
        self._settled = {p: p.detach().clone() for p in self._parameters.values()}

    @torch.no_grad()
    def pull(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Draw what an optimizer moved in a step, at the rate of its group.

        Args:
            groups: the optimizer's `param_groups`; parameters without gradient stay.
        """
        for group in groups if self._settled else ():
            share = min(1.0, 2 * self._strength * group["lr"])
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.lerp_(self._settled[parameter], share)

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes."""
        settled = self._settled
        return {f"{ELASTIC}{k}": settled[p] for k, p in self._parameters.items() if p in settled}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave; without it there is no pull until the next version."""
        kept = tensors_under(state, ELASTIC)
        self._settled = {
            p: kept[k].to(p, copy=True) for k, p in self._parameters.items() if k in kept
        }
