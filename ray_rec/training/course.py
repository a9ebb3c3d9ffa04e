"""What the steps of a window share, and what a worker's part of one step comes to."""

from dataclasses import dataclass

from torch import Tensor

from ray_rec.features.arrays import Int64
from ray_rec.model.items import ItemSlice
from ray_rec.model.losses import LossSums
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Negatives


@dataclass(frozen=True)
class Course:
    """What all steps of a window share; popularity is [M, N, H], by moment."""

    number: int
    rate_scale: float
    moments: Moments
    popularity: Tensor
    negatives: Negatives
    counted: bool  # whether the events of its rows were counted before


@dataclass(frozen=True)
class Share:
    """What a worker's rows of one step came to: touched item rows, their slice, sums of losses."""

    rows: Int64
    items: ItemSlice | None
    sums: LossSums | None

    def losses(self) -> Metrics:
        """Return the sums of both losses, and over how many."""
        if self.sums is None:
            return Metrics()
        recall, click = self.sums.recall.detach(), self.sums.click.detach()
        return Metrics(
            {
                "recall_loss": (float(recall), self.sums.recall_weight),
                "click_loss": (float(click), self.sums.click_weight),
            }
        )
