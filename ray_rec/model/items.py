"""What is known of each item: its own vector, how often it was learned, its text.

Rows are the catalogue's. Tables grow by doubling, so that new items do not move old ones. An item's
own vector starts as the tower sees its text, and is used the more the oftener it was learned.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_rec.features.config import GROUPS
from ray_rec.model.changes import Rows
from ray_rec.model.config import ModelConfig

SERVED_ROWS = ("id", "count", "text_row", "price", "groups", "responses")
"""What a version holds of each item, texts apart."""
_ROWS = (*SERVED_ROWS, "accumulator", "changed")


@dataclass(frozen=True)
class ItemSlice:
    """U distinct items of a step: what the network sees of the catalogue.

    Attributes:
        id: own vectors [U, d], a leaf that collects the gradient.
        share: a = n/(n+k) of the own vector, [U].
        text: whitened text of the distinct texts [V, text_dim].
        text_of: int64 [U] into `text`.
        popularity: promotion and log counts by horizon, of M moments [M, U, P].
        price: [U], NaN where unknown.
        groups: int64 [U, G] keys of its groups (`catalogue.group_keys`), 0 where unknown.
        vector: item vectors [U, d] where they are known already, as when serving.
    """

    id: Tensor
    share: Tensor
    text: Tensor
    text_of: Tensor
    popularity: Tensor
    price: Tensor
    groups: Tensor
    vector: Tensor | None = None

    def unit_text(self) -> Tensor:
        """Return the distinct texts at unit length (an unknown one is zero), [V, text_dim]."""
        return self.text / math.sqrt(self.text.shape[1])


def own_share(count: Tensor, id_prior: float) -> Tensor:
    """Return a = n/(n+k), the weight of an own vector learned from n events; 0 for none."""
    return torch.where(count > 0, count / (count + id_prior), torch.zeros_like(count))


class ItemTable:
    """Tensors by catalogue row; `len` of them are in use, the rest is spare capacity.

    `changed` tells the rows that are not as the last version has them; whoever writes to a row
    says so with `touch`. Of texts a number is enough: those since are new, or all were renewed.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.id = torch.zeros(0, config.dim, dtype=dtype, device=device)
        self.text = self.id.new_zeros(0, config.text_dim)
        self.responses = self.id.new_zeros(0, 1 + config.num_outcomes)
        self.count = self.id.new_zeros(0)
        self.accumulator = self.id.new_zeros(0)
        self.price = self.id.new_zeros(0)
        self.text_row = torch.zeros(0, dtype=torch.int64, device=device)
        self.groups = self.text_row.new_zeros(0, len(GROUPS))
        self.changed = torch.zeros(0, dtype=torch.bool, device=device)
        self._num_items = self._num_texts = self._published_texts = 0

    def __len__(self) -> int:
        return self._num_items

    @property
    def num_texts(self) -> int:
        """Distinct texts held."""
        return self._num_texts

    def grow(self, num_items: int) -> None:
        """Make room for rows up to `num_items`; new ones are zero and have the price NaN."""
        before = self._num_items
        for name in _ROWS:
            setattr(self, name, _grown(getattr(self, name), num_items))
        self._num_items = max(before, num_items)
        self.price[before : self._num_items] = torch.nan
        self.changed[before : self._num_items] = True

    def touch(self, rows: Tensor) -> None:
        """Count `rows` among the changed ones."""
        self.changed[rows] = True

    def respond(self, counts: Tensor) -> None:
        """Take how often each item was shown, and taken by outcome, [n, 1+O] of the first n."""
        now = self.responses[: len(counts)]
        changed = (now != counts).any(1)
        now[changed] = counts[changed].to(now)
        self.changed[: len(counts)] |= changed

    def add_texts(self, whitened: Tensor) -> int:
        """Append whitened texts [m, text_dim]; return the row of the first."""
        first = self._num_texts
        self.text = _grown(self.text, first + len(whitened))
        self.text[first : first + len(whitened)] = whitened.to(self.text)
        self._num_texts += len(whitened)
        return first

    def renew_texts(self, whitened: Tensor) -> None:
        """Replace all texts [texts, text_dim], as another encoder sees them.

        Whoever reads the old ones from another thread keeps them.
        """
        self.text = self.text.clone()
        self.text[: self._num_texts] = whitened.to(self.text)
        self._published_texts = 0

    def gather(self, rows: Tensor, popularity: Tensor, id_prior: float) -> ItemSlice:
        """Return the items of distinct `rows` [U]; `popularity` is [M, num_items, P]."""
        texts, text_of = torch.unique(self.text_row[rows], return_inverse=True)
        return ItemSlice(
            id=self.id[rows].requires_grad_(),
            share=own_share(self.count[rows], id_prior),
            text=self.text[texts],
            text_of=text_of,
            popularity=popularity[:, rows],
            price=self.price[rows],
            groups=self.groups[rows],
        )

    def served(self) -> dict[str, Tensor]:
        """Return by name what a version holds of the rows in use."""
        out = {name: getattr(self, name)[: self._num_items] for name in SERVED_ROWS}
        return {**out, "text": self.text[: self._num_texts]}

    def changes(self) -> dict[str, Rows]:
        """Return by name the rows of `served` that changed since `published`, or are new."""
        rows = self.changed[: self._num_items].nonzero()[:, 0]
        texts = torch.arange(self._published_texts, self._num_texts, device=rows.device)
        out = {name: Rows(rows, getattr(self, name)[rows]) for name in SERVED_ROWS}
        return {**out, "text": Rows(texts, self.text[texts])}

    def published(self) -> None:
        """Let what is here now be what later `changes` start from."""
        self.changed.zero_()
        self._published_texts = self._num_texts

    def tensors(self) -> dict[str, Tensor]:
        """Return everything of the rows in use by name."""
        out = {name: getattr(self, name)[: self._num_items] for name in _ROWS}
        num_published = torch.tensor(self._published_texts)
        return {**out, "text": self.text[: self._num_texts], "published_texts": num_published}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave; raise RuntimeError where rows are of another width."""
        check_widths(tensors, {name: getattr(self, name) for name in _ROWS})
        for name in (*_ROWS, "text"):
            mine: Tensor = getattr(self, name)
            setattr(self, name, tensors[name].to(mine.device, mine.dtype, copy=True))
        self._num_items, self._num_texts = len(self.id), len(self.text)
        self._published_texts = int(tensors["published_texts"])


def check_widths(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError where rows [N, …] are not as wide as those of the same name."""
    for name, expected in like.items():
        if tensors[name].shape[1:] != expected.shape[1:]:
            found, wanted = list(tensors[name].shape), list(expected.shape[1:])
            raise RuntimeError(f"items.{name} is {found}, where rows of {wanted} are expected")


def _grown(tensor: Tensor, size: int) -> Tensor:
    """Return the tensor with at least `size` rows, doubled where it has to grow."""
    if size <= len(tensor):
        return tensor
    out = tensor.new_zeros((max(size, 2 * len(tensor)), *tensor.shape[1:]))
    out[: len(tensor)] = tensor
    return out
