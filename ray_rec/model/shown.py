"""What the click head sees of shown items: their vectors, and numbers by name.

Q queries, S shown items, M recent tokens, P numbers of popularity, d dimensions. The
transforms are fixed, logs and levels of counts: nothing is fitted, so no later row can have a part
in them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ray_rec.features.arrays import Float32, Int64
from ray_rec.features.responses import num_rates
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemSlice
from ray_rec.model.step import ShownItems
from ray_rec.model.view import CALENDAR, REPEAT_DAYS, Alike, Queries, View, calendar

PLACEMENT_DIM = 8
_LEVELS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.4, 1.8, 2.4, 3.0, 4.0)
"""Of log counts: from none to one makes a greater difference than from ten to twenty."""


@dataclass(frozen=True)
class Candidates:
    """K items that may be shown, each with what was known of it then."""

    query: Int64  # [K] which of the people
    item: Int64  # [K] rows
    popularity: Float32  # [K, P]
    rates: Float32  # [K, F] of `responses.rates`
    placement: Int64  # [K] code, 0: not told

    def among(self, rows: Tensor) -> ShownItems:
        """Return them as places in a slice of the rows, ascending [U]."""
        return ShownItems(
            query=torch.from_numpy(self.query),
            item=torch.searchsorted(rows, torch.from_numpy(self.item)),
            popularity=torch.from_numpy(self.popularity),
            rates=torch.from_numpy(self.rates),
            placement=torch.from_numpy(self.placement),
        )


@dataclass(frozen=True)
class ShownFeatures:
    """What the click head sees of S shown items and the Q queries they were shown to."""

    query: Tensor  # int64 [S] -> Q
    user: Tensor  # [S, d]
    item: Tensor  # [S, d]
    numbers: dict[str, Tensor]  # [S, width] by the names of `click_numbers`, but for the placement
    history: Tensor  # [Q, M, d]
    seen: Tensor  # bool [Q, M]
    placement: Tensor  # int64 [S], 0 where not told
    position: Tensor | None  # int64 [S] from 1, None when serving

    def shuffled(self, name: str, order: Tensor) -> "ShownFeatures":
        """Return the same, but of one name of `click_numbers` item s has what order[s] has."""
        if name == "placement":
            return replace(self, placement=self.placement[order])
        return replace(self, numbers={**self.numbers, name: self.numbers[name][order]})


def click_numbers(config: ModelConfig) -> dict[str, int]:
    """Return the width of all that the click head is told in numbers, by name and in order.

    The placement is a code that the head embeds itself.
    """
    by_rates = config.click_inputs == "rates"
    widths = {
        "calendar": CALENDAR,
        "promotion": config.promotion_width,
        "popularity": config.num_horizons * (1 + len(_LEVELS) * by_rates),
        "likeness": 2,  # to the last item's text and to the recent ones'
        "repeats": len(REPEAT_DAYS),
        "price": 2,  # and whether it is known
        "share": 1,  # of the own vector
        "rates": num_rates(config.num_outcomes),
        "habits": num_alike(config),
        "placement": PLACEMENT_DIM,
    }
    return {name: widths[name] for name in config.click_numbers}


def num_alike(config: ModelConfig) -> int:
    """Return the width of what a person had in all and of an item's like, by each affinity."""
    return (1 + len(config.affinity_columns)) * len(REPEAT_DAYS)


def shown_features(
    config: ModelConfig, items: ItemSlice, view: View, shown: ShownItems
) -> ShownFeatures:
    """Return what the click head of a configuration sees of items shown to queries."""
    asked, query = torch.unique(shown.query, return_inverse=True)
    known = view.kind if config.click_inputs == "rates" else view.vector
    return ShownFeatures(
        query=query,
        user=view.user[shown.query],
        item=known[shown.item],
        numbers=_numbers(config, items, view, shown),
        history=known[view.recent[asked]],
        seen=view.seen[asked],
        placement=shown.placement,
        position=shown.position,
    )


def _numbers(
    config: ModelConfig, items: ItemSlice, view: View, shown: ShownItems
) -> dict[str, Tensor]:
    query, item = shown.query, shown.item
    text, price = view.text[item], items.price[item]
    by_rates = config.click_inputs == "rates"
    promotion, counts = shown.popularity.tensor_split([config.promotion_width], dim=1)
    alike = [(profile[query] * text).sum(1) for profile in (view.text_last, view.text_mean)]
    known_price = torch.log1p(price.nan_to_num(0.0).clamp(min=0))
    numbers = {
        "promotion": promotion,
        "popularity": by_levels(counts) if by_rates else counts,
        "likeness": torch.stack(alike, dim=1),
        "repeats": view.own.look_up(query, item),
        "price": torch.stack([known_price, torch.isnan(price).to(text.dtype)], dim=1),
        "share": items.share[item][:, None],
        "rates": shown.rates,
    }
    if "calendar" in config.click_numbers:
        numbers["calendar"] = calendar(view.queries.at_ms, text.dtype)[query]
    if "habits" in config.click_numbers:
        asked, of = torch.unique(query, return_inverse=True)
        had = alike_of(config, items, view.queries.of(asked))
        numbers["habits"] = torch.cat([view.own.total[query], had.look_up(of, item)], dim=1)
    return {name: numbers[name] for name in config.click_numbers if name in numbers}


def alike_of(config: ModelConfig, items: ItemSlice, queries: Queries) -> Alike:
    """Return what queries had of the like of items, by the groups that a configuration names."""
    return Alike.of(queries, items.groups[:, config.affinity_columns], items.id.dtype)


def by_levels(popularity: Tensor) -> Tensor:
    """Return log counts [S, H] with how far each is above several levels, up to 1, [S, H·(1+K)].

    A line that may bend at each of K levels (the piecewise linear encoding of Gorishniy et al. 2022
    with fixed bounds): what few sales of a rare item tell is no longer drowned by what many do.
    """
    above = popularity[:, :, None] - popularity.new_tensor(_LEVELS)
    return torch.cat([popularity, above.clamp(0.0, 1.0).flatten(1)], dim=1)
