"""What a version knows of each item as it answers: vectors are made once, not for each request."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ray_rec.features.arrays import Float32
from ray_rec.features.responses import rate_codes, rates
from ray_rec.model.items import ItemSlice, ItemTable, check_widths, own_share
from ray_rec.model.recommender import MultiTaskModel

_BY_ROW = ("vector", "share", "price", "text_row", "groups", "responses")
_CHUNK_TEXTS = 1024
"""Texts go through the tower in pieces that stay in the processor's cache."""


@dataclass(frozen=True)
class ServedItems:
    """N items and their T distinct texts."""

    vector: Tensor  # [N, d]
    share: Tensor  # [N]
    price: Tensor  # [N]
    text_row: Tensor  # int64 [N]
    groups: Tensor  # int64 [N, G]
    responses: Tensor  # [N, 1+O]
    text: Tensor  # whitened [T, text_dim]

    @classmethod
    def of(
        cls, model: MultiTaskModel, items: Mapping[str, Tensor], rows: Tensor | None = None
    ) -> Self:
        """Make them of a version's item tables; with `rows` (int64 [n]) row j is rows[j].

        Raises:
            RuntimeError: the tables are not those of such a model.
        """
        check_widths(items, ItemTable(model.config, torch.float32, torch.device("cpu")).served())
        if rows is not None:
            items = _only(items, rows)
        share = own_share(items["count"], model.config.id_prior)
        with torch.inference_mode():
            parts = torch.split(items["text"], _CHUNK_TEXTS)
            text = torch.cat([model.tower(part) for part in parts])
            vector = torch.lerp(text[items["text_row"]], items["id"], share[:, None])
        kept = {name: items[name] for name in ("price", "text_row", "groups", "responses", "text")}
        return cls(vector, share, **kept)

    def __len__(self) -> int:
        return len(self.vector)

    @cached_property
    def rates(self) -> Float32:
        """Rates of all items (`responses.rates`), [N, F], made when they are first asked for."""
        codes = rate_codes(self.groups.numpy())
        return rates(self.responses.double().numpy(), codes, slice(None))

    def permuted(self, index: Tensor, vector: Tensor, text: Tensor, groups: Tensor) -> Self:
        """Return items of which row j is this one's index[j] (int64), or cold where that is -1.

        Of the cold ones `vector` [n, d], whitened `text` [n, text_dim] and `groups` int64 [n, G]
        are given, in order.
        """
        cold, taken = torch.nonzero(index < 0)[:, 0], index.clamp(min=0)
        columns = {name: getattr(self, name).index_select(0, taken) for name in _BY_ROW}
        columns["vector"][cold] = vector
        columns["share"][cold] = 0.0
        columns["price"][cold] = torch.nan
        columns["groups"][cold] = groups
        columns["responses"][cold] = 0.0
        columns["text_row"][cold] = len(self.text) + torch.arange(len(text))
        return type(self)(**columns, text=torch.cat([self.text, text]) if len(text) else self.text)

    def slice(self, rows: Tensor) -> ItemSlice:
        """Return some items, distinct rows [U], as the network sees them."""
        return ItemSlice(
            id=self.vector[rows],
            share=self.share[rows],
            text=self.text[self.text_row[rows]],
            text_of=torch.arange(len(rows)),
            popularity=self.vector.new_zeros(1, len(rows), 0),  # both heads are given theirs
            price=self.price[rows],
            groups=self.groups[rows],
            vector=self.vector[rows],
        )


def _only(items: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Return the item tables of some rows, each with a text of its own."""
    out = {name: table[rows] for name, table in items.items() if name != "text"}
    return {**out, "text": items["text"][out["text_row"]], "text_row": torch.arange(len(rows))}
