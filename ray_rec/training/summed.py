"""What one step comes to over all workers: each worker's part of it, added up in one exchange."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ray_rec.features.arrays import Int64
from ray_rec.training.course import Share
from ray_rec.training.workers import Workers


@dataclass(frozen=True)
class Summed:
    """The U item rows that any worker's part touched, and sums over the workers.

    Attributes:
        rows: of the catalogue, ascending, int64 [U].
        grad: of their own vectors, [U, d].
        seen: how many events each was learned for, [U].
        losses: recall and click, [2].
    """

    rows: Int64
    grad: Tensor
    seen: Tensor
    losses: Tensor

    @classmethod
    def over(
        cls, workers: Workers, share: Share, events: Int64, own: Tensor, dense: Sequence[Tensor]
    ) -> Self:
        """Add up a step.

        Args:
            workers: all of whom come here.
            share: this worker's part.
            events: the items of its events that are to be counted, rows of its part.
            own: a table of own vectors [N, d], for width, type and device alone.
            dense: gradients of the dense weights, replaced by their sums in the same exchange.
        """
        rows, place = workers.union(share.rows)
        grad = own.new_zeros(len(rows), own.shape[1])
        seen, losses = grad.new_zeros(len(rows)), grad.new_zeros(2)
        if share.items is not None and share.items.id.grad is not None:
            grad[place] = share.items.id.grad
        if share.sums is not None:
            losses += torch.stack([share.sums.recall, share.sums.click]).detach()
        if len(events):
            at = torch.from_numpy(np.searchsorted(rows, events)).to(own.device)
            seen.index_add_(0, at, torch.ones_like(at, dtype=own.dtype))
        workers.add_flat([*dense, grad, seen, losses])
        return cls(rows, grad, seen, losses)
