"""The two heads over one trunk: what a person may want at all, and what a shown item comes to.

Q queries, C candidates, M recent tokens, P numbers of popularity (promotion, then log counts by
horizon), O outcomes, S shown items. A recall score is a sum of parts, so that each can be
shown as the reason for an item.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ray_rec.features.records import PLACEMENTS
from ray_rec.model.config import ModelConfig
from ray_rec.model.shown import PLACEMENT_DIM, ShownFeatures, click_numbers, num_alike
from ray_rec.model.view import REPEAT_DAYS


class RecallHead(nn.Module):
    """score = user·item + popularity, text similarity and own repeats, each with its weights.

    An item of the own history is judged by how often it came back rather than by what others buy:
    it has a bonus, and popularity counts less for it. With `model.repeat_units` a layer of so many
    units is added to that line: often and lately is more than the sum of both, what somebody with a
    long past took is more of a habit than what a newcomer took, some things are bought again and
    others once, and who buys one kind of yogurt may buy another. Taste alone then tells new items
    apart only: of those taken before it knows less than how often they came back.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5 * config.dim**-0.5))
        # near what some weeks of baskets teach, so that the first answers make sense already
        longer = torch.linspace(0.0, 1.0, config.num_horizons)
        total, promoted = longer.sum().clamp(min=1.0), torch.zeros(config.promotion_width)
        self.popularity = nn.Parameter(torch.cat([promoted, 1.2 * longer / total]))
        self._promotions = config.promotion_width
        self._late = bool(config.late_text)
        self._more_if_new = config.late_text[2] if self._late else 0.0
        if self._late:
            self.register_buffer("text", torch.tensor(config.late_text[:2]))
        else:
            self.text = nn.Parameter(torch.tensor([0.3, 1.7]))
        self.repeat = nn.Parameter(torch.tensor([1.8, -0.2, 1.0]))
        self.repeat_bonus = nn.Parameter(torch.tensor(3.5))
        self.repeat_popularity = nn.Parameter(torch.cat([promoted, -0.8 * longer / total]))
        self.bend = _bend(config) if config.repeat_units else None

    def taste(self, dot: Tensor) -> Tensor:
        """Return the part of user·item."""
        return dot * self.scale

    @property
    def tastes_new(self) -> bool:
        """Whether that part is of new items only, as a layer judges those of the own history."""
        return self.bend is not None

    def popular(self, popularity: Tensor) -> Tensor:
        """Return the part of popularity [..., P]."""
        return popularity @ self.popularity

    def popular_parts(self, popularity: Tensor) -> dict[str, Tensor]:
        """Return what `popular` adds up, by what is told: counts, and promotion where it is."""
        told = {"popularity": slice(self._promotions, None)}
        told |= {"promotion": slice(self._promotions)} if self._promotions else {}
        return {n: popularity[..., part] @ self.popularity[part] for n, part in told.items()}

    @property
    def reads(self) -> bool:
        """Whether texts are part of the score now."""
        return not (self._late and self.training)

    def profile(self, last: Tensor, mean: Tensor) -> Tensor:
        """Return the text vector [Q, text_dim] whose dot product with an item's is the text part.

        Args:
            last: unit vectors of the last item's text [Q, text_dim].
            mean: the same of the recent items' mean.
        """
        return last * self.text[0] + mean * self.text[1]

    def emphasis(self, share: Tensor) -> Tensor:
        """Return by how much an item's text counts, from the share of its own vector, any shape."""
        return 1.0 + self._more_if_new * (1.0 - share)

    def repeats(self, counts: Tensor, popularity: Tensor, habits: Tensor | None) -> Tensor:
        """Return the part of items of the own history, [n].

        Args:
            counts: log counts [n, R].
            popularity: of everybody, [n, P].
            habits: what else a layer sees of them, [n, `num_habits`]; None without one.
        """
        line = counts @ self.repeat + popularity @ self.repeat_popularity + self.repeat_bonus
        if self.bend is None or habits is None:
            return line
        return line + cast(Tensor, self.bend(torch.cat([counts, popularity, habits], dim=1)))[:, 0]


def num_habits(config: ModelConfig) -> int:
    """Return the width of what a layer is told beside (`MultiTaskModel.habits`)."""
    return num_alike(config) + config.dim + 1


def _bend(config: ModelConfig) -> nn.Sequential:
    """Return what is added to the line of repeats, to [n, 1]; nothing at first."""
    width = len(REPEAT_DAYS) + config.popularity_width + num_habits(config)
    inner = nn.Linear(width, config.repeat_units)
    outer = nn.Linear(config.repeat_units, 1, bias=False)
    nn.init.zeros_(outer.weight)
    return nn.Sequential(inner, nn.GELU(), outer)


class Placement(nn.Module):
    """What the place where an item is shown does: to any item, and to items of its kind."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.plain = nn.Embedding(PLACEMENTS, PLACEMENT_DIM)
        self.of_kind = nn.Embedding(PLACEMENTS, dim)
        for table in (self.plain, self.of_kind):
            nn.init.normal_(table.weight, std=0.1)


class ClickHead(nn.Module):
    """Attention of the candidate over the history (Zhou et al. 2018, DIN), crosses, one logit each.

    The place an item was shown at is a bias of its own, learned and left out when serving.
    """

    MAX_POSITION = 64

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, numbers = config.dim, click_numbers(config)
        width, has_placement = sum(numbers.values()), "placement" in numbers
        self.key, self.ask = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.scale = dim**-0.5
        self.mix = nn.Sequential(
            nn.Linear((4 + has_placement) * dim + width, 2 * dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * dim, dim),
            nn.GELU(),
        )
        self.placement = Placement(dim) if has_placement else None
        self.wide = nn.Linear(width, len(config.outcomes))
        self.out = nn.Linear(dim, len(config.outcomes))
        self.position = nn.Embedding(self.MAX_POSITION + 1, len(config.outcomes))
        nn.init.zeros_(self.position.weight)

    def forward(self, shown: ShownFeatures) -> Tensor:
        """Return logits [S, O]."""
        liked = self._liked(shown)
        crosses = [shown.item, liked * shown.item, shown.user * shown.item, shown.user]
        told = list(shown.numbers.values())
        if self.placement is not None:
            crosses.append(shown.item * self.placement.of_kind(shown.placement))
            told.append(self.placement.plain(shown.placement))
        numbers = torch.cat(told, dim=1)
        hidden = self.mix(torch.cat([*crosses, numbers], dim=1))
        logits = self.out(hidden) + self.wide(numbers)
        if shown.position is not None:
            logits = logits + self.position(shown.position.clamp(0, self.MAX_POSITION))
        return cast(Tensor, logits)

    def _liked(self, shown: ShownFeatures) -> Tensor:
        """Return the history as each candidate weighs it, [S, d]; keys are made once a query."""
        num_queries, _, dim = shown.history.shape
        counts = torch.bincount(shown.query, minlength=num_queries)
        order = torch.argsort(shown.query, stable=True)
        first = torch.cumsum(counts, 0) - counts
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - first[shown.query[order]]
        asked = self.ask(shown.item)
        asks = asked.new_zeros(num_queries, int(counts.max()) if len(order) else 0, dim)
        asks = asks.index_put((shown.query, rank), asked)
        weight = torch.bmm(asks, self.key(shown.history).transpose(1, 2)) * self.scale
        weight = torch.sigmoid(weight) * shown.seen[:, None]
        liked = torch.bmm(weight, shown.history)
        liked = liked / shown.seen.sum(1).clamp(min=1)[:, None, None]
        return liked[shown.query, rank]
