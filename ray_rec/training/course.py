"""What the steps of a window share, and what a worker's part of one step comes to."""

from dataclasses import dataclass

from torch import Tensor

from ray_rec.features.arrays import Int64
from ray_rec.model.items import ItemSlice
from ray_rec.model.losses import LossSums
from ray_rec.training.config import LearnerConfig
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Negatives
from ray_rec.training.schedule import Rates, one_cycle, scheduled


@dataclass(frozen=True)
class Stretch:
    """Some of the steps of several passes.

    Attributes:
        moments: the popularity that its queries are asked with, by their time.
        begin: the share of all steps of the passes that come before it.
        end: the share of them that is taken with it.
    """

    moments: Moments
    begin: float
    end: float

    def at(self, step: int, num_steps: int) -> float:
        """Return how far the passes have come before a step of it."""
        return self.begin + (self.end - self.begin) * step / num_steps


@dataclass(frozen=True)
class Course:
    """What all steps of a window share; popularity is [M, N, P], by moment."""

    number: int
    num_steps: int
    rate_scale: float
    moments: Moments
    popularity: Tensor
    negatives: Negatives
    stretch: Stretch | None

    @property
    def counted(self) -> bool:
        """Whether the events of its rows were counted before."""
        return self.stretch is not None

    def rates(self, config: LearnerConfig, step: int, taken: int) -> Rates:
        """Return the rates of one of its steps, `taken` having been taken ever."""
        if self.stretch is None:
            return scheduled(config, taken, self.rate_scale)
        before, after = (self.stretch.at(at, self.num_steps) for at in (step, step + 1))
        return one_cycle(before, after, self.rate_scale)


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
