"""Baselines by likeness: of texts to what a user took, and of users to other users."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ray_rec.evaluation.asking.questions import Interactions, Queries, joined
from ray_rec.features.arrays import AnyArray, Bool, Int64
from ray_rec.features.config import DAY_MS
from ray_rec.model.text import Vectors, Whitening

WEEK_MS = 7 * DAY_MS


class TextKnn:
    """Items by the cosine of their text to the last item taken, plus that to the mean of all.

    Vectors are whitened, by the texts of learned items alone: raw ones are all alike (a mean cosine
    above .8) and rank half as well. An item without text scores 0, as a user without history does.

    Args:
        raw: vector of each item's text, [N, raw_dim]; zeros: no text.
        text_dim: directions kept.
    """

    name = "text-knn"

    def __init__(self, raw: Vectors, text_dim: int = 192) -> None:
        self._raw, self._text_dim = raw, text_dim
        self._learned = np.zeros(len(raw), np.bool_)
        self._unit = torch.zeros(len(raw), text_dim)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the sum of both cosines."""
        items = [torch.from_numpy(history.item).long() for history in queries.histories]
        last = torch.stack([self._unit[taken[-1:]].sum(0) for taken in items])
        mean = torch.stack([self._unit[taken].sum(0) for taken in items])
        return ((last + normalize(mean, dim=1)) @ self._unit.T).numpy()

    def observe(self, done: Interactions) -> None:
        """Fit the whitening on the texts of all items learned so far."""
        self._learned[done.item] = True
        self._unit = normalize(fit_texts(self._raw, self._learned, self._text_dim), dim=1)


class UserKnn:
    """What a user took and what like users took, older things counting less.

    A user is the vector of decayed counts, of length one; the score is `own` · the user's vector +
    (1 - own) · the mean of the nearest `neighbours` by cosine. After TIFU-KNN (Hu et al. 2020),
    with age in weeks in the place of groups of baskets.
    """

    name = "user-knn"

    def __init__(self, neighbours: int = 300, own: float = 0.7, decay: float = 0.95) -> None:
        self._most, self._own, self._decay = neighbours, own, decay
        self._parts: list[Interactions] = []
        self._built: tuple[Tensor, Tensor] | None = None

    def scores(self, queries: Queries) -> AnyArray:
        """Return the mixture; zeros for users without history."""
        if self._built is None or self._built[0].shape[1] != queries.num_items:
            self._built = self._build(queries.num_items)
        by_user, by_item = self._built
        own = self._profiles(queries).to_dense()
        alike = by_user @ own.T
        known = np.flatnonzero(queries.user < len(alike))
        alike[queries.user[known], known] = 0  # nobody is a neighbour of oneself
        value, nearest = alike.topk(min(self._most, len(alike)), dim=0)
        near = torch.zeros_like(alike).scatter_(0, nearest, (value > 0).float())
        others = (by_item @ (near / near.sum(0).clamp(min=1))).T
        return (self._own * own + (1 - self._own) * others).numpy()

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._parts.append(done)
        self._built = None

    def _build(self, num_items: int) -> tuple[Tensor, Tensor]:
        """Return all users' vectors, [U, N] and [N, U]."""
        done = joined(self._parts)
        shape = int(done.user.max(initial=-1)) + 1, num_items
        by_user = self._vectors(done.user, done.item, done.ts, shape)
        return by_user, by_user.T.coalesce()

    def _profiles(self, queries: Queries) -> Tensor:
        """Return the vectors of who asks, [Q, N]."""
        taken = queries.histories
        query = np.repeat(np.arange(len(queries)), [len(history.item) for history in taken])
        item, ts = (np.concatenate([getattr(h, name) for h in taken]) for name in ("item", "ts"))
        return self._vectors(query, item, ts, (len(queries), queries.num_items))

    def _vectors(self, owner: Int64, item: AnyArray, ts: Int64, shape: tuple[int, int]) -> Tensor:
        """Return decayed counts by owner of length one, sparse; age is from the owner's newest."""
        newest = np.full(shape[0], -1)
        np.maximum.at(newest, owner, ts)
        weight = self._decay ** ((newest[owner] - ts) / WEEK_MS)
        places = torch.from_numpy(np.stack([owner, item.astype(np.int64)]))
        summed = torch.sparse_coo_tensor(
            places, torch.from_numpy(weight.astype(np.float32)), shape, check_invariants=False
        ).coalesce()
        length = np.sqrt(np.bincount(summed.indices()[0], summed.values() ** 2, shape[0]))
        values = summed.values() / torch.from_numpy(length.astype(np.float32))[summed.indices()[0]]
        return torch.sparse_coo_tensor(
            summed.indices(), values, shape, is_coalesced=True, check_invariants=False
        )


def fit_texts(raw: Vectors, learned: Bool, text_dim: int) -> Tensor:
    """Return whitened texts [N, text_dim] of length sqrt(text_dim), zeros where there is none.

    Args:
        raw: encoded texts [N, raw_dim]; zeros: no text.
        learned: the items whose distinct texts the whitening is fitted on, [N].
        text_dim: directions kept.
    """
    known = raw[learned & raw.any(axis=1)]
    if not len(known):
        return torch.zeros(len(raw), text_dim)
    return Whitening.fit(np.unique(known, axis=0), text_dim).apply(torch.from_numpy(raw))
