"""What the queries of a step see: tokens before each query, and the items of its own history.

Shapes: B rows of L tokens, Q queries, M recent tokens, P pairs of a query and an item, U items of
the slice, A groups that a past is counted by, d dimensions, R repeat features. Items are given as
places in an `ItemSlice`.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

DAY_MS = 86_400_000.0
REPEAT_DAYS = (None, 7.0, 28.0)
"""Repeats are counted plainly and decayed with these time constants."""


@dataclass(frozen=True)
class Queries:
    """Who asks: token rows, and queries that see the first `context` tokens of their row."""

    token: Tensor  # int64 [B, L] places in the slice, 0 where padded
    type: Tensor  # int64 [B, L]
    ts: Tensor  # int64 [B, L] ms
    row: Tensor  # int64 [Q]
    context: Tensor  # int64 [Q]
    at_ms: Tensor  # int64 [Q]
    moment: Tensor  # int64 [Q] of the slice's popularity that it is asked with
    told: Tensor | None = None  # bool [B, L] tokens whose item is told; None: all

    def of(self, query: Tensor) -> "Queries":
        """Return some of the queries, int64 [n], over the same rows."""
        parts = {name: getattr(self, name)[query] for name in ("row", "context", "at_ms", "moment")}
        return replace(self, **parts)


@dataclass(frozen=True)
class Pieces:
    """The stretches of the rows that the trunk runs over, and where each query stands in them."""

    token: Tensor  # int64 [K, M]
    type: Tensor  # int64 [K, M]
    ts: Tensor  # int64 [K, M]
    of: Tensor  # int64 [Q] -> K
    context: Tensor  # int64 [Q] tokens of its piece that a query sees, at most M
    told: Tensor | None  # bool [K, M] tokens whose item is told; None: all


@dataclass(frozen=True)
class Pairs:
    """Distinct (query, item) pairs in ascending order, each with values [P, R]."""

    query: Tensor  # int64 [P]
    item: Tensor  # int64 [P]
    key: Tensor  # int64 [P] query · num_items + item
    values: Tensor  # [P, R] log1p of counts
    total: Tensor  # [Q, R] log1p of the counts of all items of a query
    num_items: int

    def look_up(self, query: Tensor, item: Tensor) -> Tensor:
        """Return the values of some pairs, zero for those that are not here: [..., R]."""
        key = query * self.num_items + item
        place = torch.searchsorted(self.key, key)
        here = torch.cat([self.key, self.key.new_full((1,), -1)])[place] == key
        values = torch.cat([self.values, self.values.new_zeros(1, *self.values.shape[1:])])
        return values[torch.where(here, place, len(self.key))]


def pieces(queries: Queries, longest: int) -> Pieces:
    """Cut rows into pieces of at most `longest` tokens, so that no query depends on its neighbours.

    Where a query's piece begins follows from its context alone; it sees all tokens before it, or of
    a longer past at least the last `longest`/2.
    """
    width = queries.token.shape[1]
    if width <= longest:
        token, kind, ts = queries.token, queries.type, queries.ts
        return Pieces(token, kind, ts, queries.row, queries.context, queries.told)
    hop = max(1, longest // 2)
    over = (queries.context - longest).clamp(min=0)
    begin = torch.div(over + hop - 1, hop, rounding_mode="floor") * hop
    key, of = torch.unique(queries.row * (width + 1) + begin, return_inverse=True)
    row, first = key // (width + 1), key % (width + 1)
    place = first[:, None] + torch.arange(longest, device=row.device)
    at = (row[:, None], place.clamp(max=width - 1))  # what is beyond the row is never seen
    context = queries.context - begin
    told = None if queries.told is None else queries.told[at]
    return Pieces(queries.token[at], queries.type[at], queries.ts[at], of, context, told)


def repeat_weights(age_ms: Tensor) -> Tensor:
    """Return what an event so long ago adds to each repeat feature, float64 [..., R]."""
    age = age_ms.clamp(min=0).double() / DAY_MS
    parts = [torch.ones_like(age) if d is None else torch.exp(-age / d) for d in REPEAT_DAYS]
    return torch.stack(parts, dim=-1)


def own_items(queries: Queries, num_items: int, dtype: torch.dtype) -> Pairs:
    """Return the items of each query's own history, with log1p of their decayed counts and sums."""
    return own_counts(queries, torch.arange(num_items, device=queries.token.device)[:, None], dtype)


def own_counts(queries: Queries, codes: Tensor, dtype: torch.dtype) -> Pairs:
    """Return each query's own history counted by codes of its items, as log1p of decayed counts.

    An item has as many codes, int64 [U, G], as it is counted by; a pair's item is a code here.
    """
    num_codes = int(codes.max()) + 1 if len(codes) else 1
    token = queries.token[queries.row]
    seen = torch.arange(token.shape[1], device=token.device) < queries.context[:, None]
    if queries.told is not None:
        seen &= queries.told[queries.row]
    query, place = torch.nonzero(seen, as_tuple=True)
    code = query[:, None] * num_codes + codes[token[query, place]]
    key, pair = torch.unique(code, return_inverse=True)
    age_ms = queries.at_ms[query] - queries.ts[queries.row[query], place]
    added = repeat_weights(age_ms)
    counts = added.new_zeros(len(key), added.shape[1])
    for column in pair.T:
        counts.index_add_(0, column, added)
    total = added.new_zeros(len(queries.row), added.shape[1]).index_add_(0, query, added)
    return Pairs(
        query=key // num_codes,
        item=key % num_codes,
        key=key,
        values=torch.log1p(counts).to(dtype),
        total=torch.log1p(total).to(dtype),
        num_items=num_codes,
    )


CALENDAR = 4
"""Numbers of `calendar`."""


def calendar(at_ms: Tensor, dtype: torch.dtype) -> Tensor:
    """Return where times (ms UTC, [Q]) fall in the day and the week: sine and cosine each, [Q, 4].

    >>> noon_on_thursday = torch.tensor([43_200_000])
    >>> calendar(noon_on_thursday, torch.float64).round(decimals=2)[0].tolist()
    [0.0, -1.0, 0.43, 0.9]
    """
    days = at_ms.double() / DAY_MS
    turns = 2 * torch.pi * torch.stack([days % 1, (days / 7) % 1], dim=1)
    return torch.stack([turns.sin(), turns.cos()], dim=2).flatten(1).to(dtype)


@dataclass(frozen=True)
class Alike:
    """What each query had of the like of an item, by each of its groups."""

    own: Pairs  # by code
    code: Tensor  # int64 [U, A] of each item's groups; those of different columns differ
    known: Tensor  # bool [U, A] whether it has such a group

    @classmethod
    def of(cls, queries: Queries, groups: Tensor, dtype: torch.dtype) -> Self:
        """Count each query's own history by the groups of its items, keys int64 [U, A]."""
        columns, first = [], 0
        for column in groups.T:
            keys, code = torch.unique(column, return_inverse=True)
            columns.append(code + first)
            first += len(keys)
        code = torch.stack(columns, dim=1)
        return cls(own_counts(queries, code, dtype), code, groups != 0)

    def look_up(self, query: Tensor, item: Tensor) -> Tensor:
        """Return log counts [n, A·R] of what some queries had of the like of an item."""
        found = self.own.look_up(query[:, None], self.code[item])
        return (found * self.known[item][..., None]).flatten(1)


@dataclass(frozen=True)
class View:
    """What is computed once for the queries of a step."""

    queries: Queries
    vector: Tensor  # [U, d]
    kind: Tensor  # [U, d] the vectors that their texts alone give
    text: Tensor  # [U, text_dim], unit length or zero
    user: Tensor  # [Q, d]
    recent: Tensor  # int64 [Q, M] the newest tokens, newest first
    seen: Tensor  # bool [Q, M] which of them there are
    own: Pairs
    alike: Alike | None  # where a layer judges repeats
    text_last: Tensor  # [Q, text_dim]
    text_mean: Tensor  # [Q, text_dim]
