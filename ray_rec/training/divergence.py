"""When learning has gone wrong, and what is done about it: a lower rate, then no learning at all.

A window that diverges is learned again from the last checkpoint at a lower rate; if it diverges
again it is set aside: the state advances by it, the weights do not.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ray_rec.errors import ModelError
from ray_rec.log.window import Window

_DECAY = 0.98
USUAL, SEEN = "divergence.usual", "divergence.seen"


class Diverged(ModelError):
    """A loss or gradient is not finite, or a loss exploded; alike on all workers."""


class DivergenceGuard:
    """Compares each step's losses with what they usually are (a running mean over steps).

    Args:
        factor: a loss above factor · (1 + usual loss), in nats, is an explosion.
        patience: steps of a task before its losses are judged, beyond being finite.
    """

    def __init__(self, factor: float, patience: int) -> None:
        self._factor, self._patience = factor, patience
        self._usual = torch.zeros(2, dtype=torch.float64)
        self._seen = torch.zeros(2, dtype=torch.float64)

    def check(self, where: str, losses: Tensor, weights: Tensor, norm: Tensor) -> None:
        """Take the losses of a step and its gradient's norm; without weight a task has no loss.

        Args:
            where: named in the error.
            losses: means over all workers, recall and click, [2].
            weights: how many rows each is of, [2].
            norm: of the gradient over all workers, before it is clipped.

        Raises:
            Diverged: learning cannot go on from here.
        """
        value, present = losses.detach().cpu().double(), weights.cpu() > 0
        if not (torch.isfinite(norm) and torch.isfinite(value[present]).all()):
            raise Diverged(f"{where}: a loss or gradient is not finite")
        usual = self._usual / (1 - _DECAY**self._seen).clamp(min=1e-12)
        exploded = present & (self._seen >= self._patience) & (value > self._factor * (1 + usual))
        for task in exploded.nonzero()[:1, 0].tolist():
            name = ("recall", "click")[task]
            raise Diverged(
                f"{where}: the {name} loss is {value[task]:.3g}, usually {usual[task]:.3g}"
            )
        moved = _DECAY * self._usual + (1 - _DECAY) * value
        self._usual = torch.where(present, moved, self._usual)
        self._seen = self._seen + present

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes."""
        return {USUAL: self._usual, SEEN: self._seen}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self._usual, self._seen = state[USUAL].clone(), state[SEEN].clone()


def milder(window: Window, scale: float) -> Window:
    """Return the plan that a diverged window is tried with next.

    >>> first = Window(7, {})
    >>> second = milder(first, 0.1)
    >>> second.rate_scale, milder(second, 0.1).set_aside
    (0.1, True)
    """
    if window.rate_scale > scale:
        return replace(window, rate_scale=scale)
    return replace(window, set_aside=True)
