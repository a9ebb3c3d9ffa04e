"""What to beat: simple rankers over the full catalogue, learning from the same interactions.

`observe` takes a window's interactions after the window was tested, so counts hold strictly earlier
windows; what a user did before the query within its window is in `Queries.fresh`, and the personal
rankers use it as the model does.
"""

from typing import Protocol

import numpy as np
import torch

from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64, grown, mix, ragged_ranges
from ray_rec.features.config import DAY_MS

_SHIFT = 32  # a user and an item in one int64


class Ranker(Protocol):
    """Scores all items for queries; the higher the likelier."""

    name: str

    def scores(self, queries: Queries) -> AnyArray:
        """Return float [Q, N] from what was observed and what queries know of themselves."""

    def observe(self, done: Interactions) -> None:
        """Learn from a window, once all its queries were scored."""


class Random:
    """Items in an order drawn from the query and the item: what knowing nothing is worth."""

    name = "random"

    def scores(self, queries: Queries) -> AnyArray:
        """Return numbers from 0 to 1."""
        query = mix(queries.user, queries.ts)
        items = np.tile(np.arange(queries.num_items), len(queries))
        drawn = mix(np.repeat(query, queries.num_items), items)
        return (drawn / 2.0**64).astype(np.float32).reshape(_shape(queries))

    def observe(self, done: Interactions) -> None:
        """Learn nothing."""


class Popularity:
    """Items by how often they were taken at all."""

    name = "popularity"

    def __init__(self) -> None:
        self.counts: Float64 = np.zeros(0)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the counts, alike for every query."""
        return np.broadcast_to(_padded(self.counts, queries.num_items), _shape(queries))

    def observe(self, done: Interactions) -> None:
        """Count."""
        new = np.bincount(done.item, minlength=len(self.counts)).astype(np.float64)
        new[: len(self.counts)] += self.counts
        self.counts = new


class RecencyPopularity:
    """Items by how often they were taken in the last days before the window."""

    name = "recency-popularity"

    def __init__(self, days: float = 28.0) -> None:
        self._span_ms = days * DAY_MS
        self._item: Int64 = np.zeros(0, np.int64)
        self._ts: Int64 = np.zeros(0, np.int64)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the counts, alike for every query."""
        counts = np.bincount(self._item, minlength=queries.num_items).astype(np.float64)
        return np.broadcast_to(counts, _shape(queries))

    def observe(self, done: Interactions) -> None:
        """Count the window, and leave out what has become too old by its end."""
        ts = np.concatenate([self._ts, done.ts])
        recent = ts > ts.max(initial=0) - self._span_ms
        self._item = np.concatenate([self._item, done.item])[recent]
        self._ts = ts[recent]


class OwnFrequency:
    """Items by how often the user took them before; popularity orders what is equal."""

    name = "own-frequency"

    def __init__(self) -> None:
        self._pairs = Pairs()
        self._popularity = Popularity()

    def scores(self, queries: Queries) -> AnyArray:
        """Return own counts plus a share below one for popularity."""
        popular = _padded(self._popularity.counts, queries.num_items)
        out = np.tile((popular / (popular.max() + 1)).astype(np.float32), (len(queries), 1))
        query, item, count = self._pairs.known(queries)
        np.add.at(out, (query, item), count)
        return out

    def observe(self, done: Interactions) -> None:
        """Count pairs of user and item."""
        self._pairs.add(done)
        self._popularity.observe(done)


class ItemKnn:
    """Items taken by the same users: damped cosines, summed over what the user took, each time.

    With X [users, items] of zeros and ones and D = users of each item + damping, similarities are
    D^-1/2 Xt X D^-1/2 (Sarwar et al. 2001), never built: a profile goes through X and back. All
    neighbours count, an item being its own nearest, so repeats can be recommended. Without damping
    items of a single user come first: HR@10 on Complete Journey is .18 with 0 and .41 with 20.
    """

    name = "item-knn"

    def __init__(self, damping: float = 20.0) -> None:
        self._damping = damping
        self._pairs = Pairs()
        self._built: tuple[torch.Tensor, torch.Tensor, Float32] | None = None

    def scores(self, queries: Queries) -> AnyArray:
        """Return the summed cosines; zero for users without history."""
        if self._built is None or len(self._built[2]) != queries.num_items:
            self._built = self._build(queries.num_items)
        by_user, by_item, norm = self._built
        query, item, count = self._pairs.known(queries)
        profiles = np.zeros((queries.num_items, len(queries)), np.float32)
        np.add.at(profiles, (item, query), count * norm[item])
        similar = by_item @ (by_user @ torch.from_numpy(profiles))
        return (similar * torch.from_numpy(norm)[:, None]).T.contiguous().numpy()

    def observe(self, done: Interactions) -> None:
        """Add to X."""
        self._pairs.add(done)
        self._built = None

    def _build(self, num_items: int) -> tuple[torch.Tensor, torch.Tensor, Float32]:
        user, item = self._pairs.split()
        num_users = int(user.max(initial=-1)) + 1
        taken = np.bincount(item, minlength=num_items)
        norm = (1 / np.sqrt(np.maximum(taken + self._damping, 1))).astype(np.float32)
        order = np.argsort(item, kind="stable")
        by_user = _sparse(user, item, (num_users, num_items))
        by_item = _sparse(item[order], user[order], (num_items, num_users))
        return by_user, by_item, norm


class Pairs:
    """How often each user took each item."""

    def __init__(self) -> None:
        self._key: Int64 = np.zeros(0, np.int64)
        self._count: Int64 = np.zeros(0, np.int64)

    def add(self, done: Interactions) -> None:
        """Count interactions."""
        keys = np.concatenate([self._key, (done.user << _SHIFT) | done.item])
        counts = np.concatenate([self._count, np.ones(len(done.user), np.int64)])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        self._key = keys[first]
        self._count = np.add.reduceat(counts[order], first) if len(first) else counts

    def known(self, queries: Queries) -> tuple[Int64, Int64, Int64]:
        """Return (query, item, count) of what each query's user took strictly before it."""
        low = np.searchsorted(self._key, queries.user << _SHIFT)
        sizes = np.searchsorted(self._key, (queries.user + 1) << _SHIFT) - low
        query = np.repeat(np.arange(len(queries)), sizes)
        place = ragged_ranges(low, sizes)
        fresh_query, fresh = queries.fresh.before(queries.user, queries.ts)
        return (
            np.concatenate([query, fresh_query]),
            np.concatenate([self._key[place] & 0xFFFFFFFF, queries.fresh.item[fresh]]),
            np.concatenate([self._count[place], np.ones(len(fresh), np.int64)]),
        )

    def split(self) -> tuple[Int64, Int64]:
        """Return (user, item) of each distinct pair, ascending."""
        return self._key >> _SHIFT, self._key & 0xFFFFFFFF


def default_rankers() -> list[Ranker]:
    """Return the baselines that every backtest runs, popularity first."""
    return [Popularity(), RecencyPopularity(), ItemKnn(), OwnFrequency()]


def _padded(counts: Float64, num_items: int) -> Float64:
    return grown(counts, num_items, 0.0)[:num_items]


def _shape(queries: Queries) -> tuple[int, int]:
    return len(queries), queries.num_items


def _sparse(row: Int64, column: Int64, shape: tuple[int, int]) -> torch.Tensor:
    """Return a sparse matrix of ones; (row, column) distinct and ascending."""
    places = torch.from_numpy(np.stack([row, column]))
    return torch.sparse_coo_tensor(
        places, torch.ones(len(row)), shape, is_coalesced=True, check_invariants=False
    )
