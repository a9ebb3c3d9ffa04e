"""The items that a step's recall targets are told apart from; the same for all workers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_rec.model.config import ModelConfig

UNIFORM_SHARE = 0.3
"""Share of the draws that is uniform over the catalogue; the rest follows counts ** 0.75."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Distinct rows [C] and the log of the chance that each is drawn: 0 where all are taken."""

    row: Int64
    log_chance: Float64


class Negatives:
    """Draws for the steps of one window, from popularity as it was at the window's start.

    Args:
        popularity: float32 [N, P], log1p counts of the longest horizon last.
        config: how many to draw, and up to which N all are taken.
        number: the window; with the step it seeds the draw.
    """

    def __init__(
        self, popularity: npt.NDArray[np.float32], config: ModelConfig, number: int
    ) -> None:
        self._num, self._number = config.negatives, number
        self._all = len(popularity) <= config.exact_items
        counts = np.expm1(popularity[:, -1].astype(np.float64)) ** 0.75
        total = counts.sum()
        offered = (counts > 0) | (config.untaken_negatives or total == 0)
        self._rows = np.flatnonzero(offered)
        uniform = offered / max(1, len(self._rows))
        share = UNIFORM_SHARE if total > 0 else 1.0
        self._chance = share * uniform + (1 - share) * counts / max(total, 1e-300)
        self._cumulative = np.cumsum(self._chance)

    def draw(self, step: int) -> Draw:
        """Return the negatives of a step."""
        if self._all:
            return Draw(self._rows, np.zeros(len(self._rows)))
        generator = np.random.Generator(np.random.Philox(key=[self._number, step]))
        points = generator.random(self._num) * self._cumulative[-1]
        rows = np.unique(np.searchsorted(self._cumulative, points, side="right"))
        rows = rows[rows < len(self._chance)]
        missed = self._num * np.log1p(-np.minimum(self._chance[rows], 1 - 1e-9))
        return Draw(rows, np.log(-np.expm1(missed)))
