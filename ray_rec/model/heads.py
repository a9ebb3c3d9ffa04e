"""The two heads over one trunk: what a person may want at all, and what a shown item comes to.

Q queries, C candidates, L tokens, H horizons, O outcomes. Parts of a score are linear in a few
learned weights, so that each can be shown as the reason for an item.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ray_rec.model.config import ModelConfig

REPEAT_DAYS = (None, 7.0, 28.0)
"""Repeats are counted plainly and decayed with these time constants."""
DAY_MS = 86_400_000.0


def repeat_weights(age_ms: Tensor, seen: Tensor) -> Tensor:
    """Return what an earlier event adds to each repeat feature, [..., R]; zero if not `seen`."""
    age = age_ms.clamp(min=0).double() / DAY_MS
    parts = [torch.ones_like(age) if d is None else torch.exp(-age / d) for d in REPEAT_DAYS]
    return torch.stack(parts, dim=-1) * seen[..., None]


class RecallHead(nn.Module):
    """score = user·item + popularity, text similarity and own repeats, each with its weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(config.dim**-0.5))
        self.popularity = nn.Parameter(torch.full((config.num_horizons,), 0.3))
        self.text = nn.Parameter(torch.tensor([2.0, 2.0]))
        self.repeat = nn.Parameter(torch.tensor([0.5, 1.0, 1.0]))

    def repeats(self, features: Tensor) -> Tensor:
        """Return the repeat part of the score from repeat features [..., R]."""
        return torch.log1p(features) @ self.repeat

    def parts(
        self, dot: Tensor, popularity: Tensor, last: Tensor, mean: Tensor, repeat: Tensor
    ) -> dict[str, Tensor]:
        """Return the score's parts, each [..., C]; they add up to the score.

        Args:
            dot: user·item.
            popularity: [..., C, H].
            last: cosine of the item's text with the last item's; `mean`: with the history's mean.
            repeat: what `repeats` gave.
        """
        return {
            "taste": dot * self.scale,
            "popularity": popularity @ self.popularity,
            "text": last * self.text[0] + mean * self.text[1],
            "repeat": repeat,
        }


@dataclass(frozen=True)
class ShownFeatures:
    """What the click head sees of S shown items; vectors [S, d], numbers [S, F]."""

    user: Tensor
    item: Tensor
    history: Tensor  # [S, L, d]
    seen: Tensor  # bool [S, L]
    numbers: Tensor


class ClickHead(nn.Module):
    """Attention of the candidate over the history (Zhou et al. 2018, DIN), crosses, one logit each.

    The place an item was shown at is a bias of its own, learned and left out when serving.
    """

    NUM_NUMBERS = 2 + 2 + len(REPEAT_DAYS) + 1
    MAX_POSITION = 64

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, numbers = config.dim, self.NUM_NUMBERS + config.num_horizons
        self.key, self.ask = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.scale = dim**-0.5
        self.mix = nn.Sequential(
            nn.Linear(4 * dim + numbers, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), nn.GELU()
        )
        self.wide = nn.Linear(numbers, len(config.outcomes))
        self.out = nn.Linear(dim, len(config.outcomes))
        self.position = nn.Embedding(self.MAX_POSITION + 1, len(config.outcomes))
        nn.init.zeros_(self.position.weight)

    def forward(self, shown: ShownFeatures, position: Tensor | None = None) -> Tensor:
        """Return logits [S, O]; `position` int64 [S] from 1, None when serving."""
        weight = torch.einsum("sld,sd->sl", self.key(shown.history), self.ask(shown.item))
        weight = torch.sigmoid(weight * self.scale) * shown.seen
        liked = torch.einsum("sl,sld->sd", weight, shown.history)
        liked = liked / shown.seen.sum(1, keepdim=True).clamp(min=1)
        crosses = [shown.item, liked * shown.item, shown.user * shown.item, shown.user]
        hidden = self.mix(torch.cat([*crosses, shown.numbers], dim=1))
        logits = self.out(hidden) + self.wide(shown.numbers)
        if position is not None:
            logits = logits + self.position(position.clamp(0, self.MAX_POSITION))
        return cast(Tensor, logits)
