"""From the click head's logits to probabilities that mean what they say, kept up while streaming.

A line (Platt 1999) for each outcome, fitted window by window to what held-out users were shown.
Their outcomes taught no weight, so the head knows no more of them than of whoever is served next;
of all others recall has taught the outcomes before their exposures close.
"""

import torch
from torch import Tensor, nn

from ray_rec.model.config import ModelConfig

PRIOR = 25.0
"""Certainty of the identity at the start: some 150 shown items, of which one in five is taken."""
HALF_LIFE = 20_000
"""Shown items after which what was learned counts half: the head below it moves on."""

LEAST_SCALE = 0.01
"""What is judged likelier stays likelier, whatever few people did."""

_ITERATIONS, _LONGEST = 20, 0.5  # where a head is certain, whole steps of Newton's overshoot


class Calibration(nn.Module):
    """p = sigmoid(scale · logit + shift); the identity at the start, and for `none` always.

    Attributes:
        line: scale and shift of each outcome, [O, 2].
        certainty: inverse covariance of these, [O, 2, 2].
    """

    line: Tensor
    certainty: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_learned = config.calibration == "platt"
        if self.is_learned:
            identity = torch.tensor([1.0, 0.0]).expand(config.num_outcomes, 2)
            self.register_buffer("line", identity.clone())
            self.register_buffer("certainty", _prior(config.num_outcomes))

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits [S, O] of logits [S, O]."""
        if not self.is_learned:
            return logits
        return logits * self.line[:, 0] + self.line[:, 1]

    @torch.no_grad()
    def learn(self, logits: Tensor, labels: Tensor) -> None:
        """Fit the lines to more shown items: logits and labels [S, O].

        Logistic regression as a filter (Spiegelhalter and Lauritzen 1990): what is known so far is
        a normal prior, found anew by Newton's method and widened with every item that is taken in.
        """
        x = torch.stack([logits.T, torch.ones_like(logits.T)], dim=2).double()  # [O, S, 2]
        y, before = labels.T.double(), self.line.double()
        kept = 0.5 ** (len(logits) / HALF_LIFE)
        prior = kept * self.certainty.double()
        prior += (1 - kept) * _prior(len(prior)).to(prior)
        line = before
        for _ in range(_ITERATIONS):
            p, curve = _curve(x, line, prior)
            slope = _times(prior, line - before) + _times(x.mT, p - y)
            line = line - torch.linalg.solve(curve, slope).clamp(-_LONGEST, _LONGEST)
            line[:, 0].clamp_(min=LEAST_SCALE)
        self.line.copy_(line)
        self.certainty.copy_(_curve(x, line, prior)[1])


def _curve(x: Tensor, line: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities [O, S] and the curvature [O, 2, 2] of the negative log posterior."""
    p = torch.sigmoid(_times(x, line))
    return p, prior + (x * (p * (1 - p))[:, :, None]).mT @ x


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[:, :, None])[:, :, 0]


def _prior(num_outcomes: int) -> Tensor:
    return PRIOR * torch.eye(2).repeat(num_outcomes, 1, 1)
