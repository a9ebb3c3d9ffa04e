"""Baselines for next baskets: what a user keeps buying, and what like users buy.

A basket is all that a user took within seven days, counted back from the question. What happened
since learning ended is known once its time has come, to others as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.baskets import WEEK_MS
from ray_rec.evaluation.asking.questions import Interactions, Queries, joined
from ray_rec.evaluation.rankers.live import LivePopularity
from ray_rec.features.arrays import AnyArray, Int64, first_of_groups, starts_of
from ray_rec.features.histories import History


class DecayedFrequency:
    """Items by how often the user took them, an event counting `decay` for each week of its age.

    What is popular in the four weeks before the question adds `popular` times its share of the
    most popular item's count.
    """

    name = "decayed-frequency"

    def __init__(self, decay: float = 0.95, popular: float = 0.1) -> None:
        self._decay, self._popular = decay, popular
        self._popularity = LivePopularity()

    def scores(self, queries: Queries) -> AnyArray:
        """Return the decayed counts and a little popularity."""
        out = self._popularity.scores(queries)
        out *= self._popular / np.maximum(out.max(axis=1, keepdims=True), 1)
        query, item, ts = flat(queries.histories)
        age = (queries.ts[query] - ts) / WEEK_MS
        np.add.at(out, (query, item), self._decay**age)
        return out

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._popularity.observe(done)


@dataclass(frozen=True)
class TifuConfig:
    """Weights of baskets and neighbours, by the names of the paper.

    Of `group_size` baskets, newest first, each counts `within` times the one after it, and each
    group `between` times the next newer one; `own` is the user's share beside that of the nearest
    `neighbours`.
    """

    neighbours: int = 300
    group_size: int = 7
    within: float = 0.9
    between: float = 0.7
    own: float = 0.7

    def __post_init__(self) -> None:
        """Reject sizes that leave nothing."""
        for key in ("neighbours", "group_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"tifu {key} is {getattr(self, key)}; it must be at least 1")


class TifuKnn:
    """What a user takes again and again, and what the nearest users do (TIFU-KNN).

    A user's vector is the mean over groups of the means over their baskets, older ones counting
    less; the score is `own` · it + (1 - own) · the mean vector of the nearest (Euclidean distance).
    Others stand as they did at the last of the weeks counted from the end of what was learned.

    Source: Hu, He, Gao and Zhang 2020.
    """

    name = "tifu-knn"

    def __init__(self, config: TifuConfig | None = None) -> None:
        self._config = config or TifuConfig()
        self._parts: list[Interactions] = []
        self._learned_ms = 0
        self._known: tuple[Interactions, Interactions] | None = None  # fresh, all in order
        self._others: tuple[int, _Others] | None = None

    def scores(self, queries: Queries) -> AnyArray:
        """Return the mixture; zeros for users without history where nobody else has one."""
        if self._known is None or self._known[0] is not queries.fresh:
            self._known = queries.fresh, joined([*self._parts, queries.fresh])
            self._others = None
        every = self._known[1]
        query, item, ts = flat(queries.histories)
        age = (queries.ts[query] - 1 - ts) // WEEK_MS
        own = self._vectors(query, item, age, (len(queries), queries.num_items)).to_dense()
        out = own * self._config.own
        weeks = np.maximum(queries.ts - self._learned_ms - 1, 0) // WEEK_MS
        for week in np.unique(weeks).tolist():
            asked = torch.from_numpy(np.flatnonzero(weeks == week))
            others = self._at(every, self._learned_ms + 1 + week * WEEK_MS, queries.num_items)
            nearest = others.nearest(own[asked], queries.user[asked.numpy()], self._config)
            out[asked] += (1 - self._config.own) * nearest
        return out.numpy()

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._parts.append(done)
        self._learned_ms = max(self._learned_ms, int(done.ts.max(initial=0)))
        self._known = None

    def _at(self, every: Interactions, moment_ms: int, num_items: int) -> "_Others":
        """Return all users as they stood at a moment."""
        if self._others is None or self._others[0] != moment_ms:
            done = every.take(np.flatnonzero(every.ts < moment_ms))
            shape = int(done.user.max(initial=-1)) + 1, num_items
            age = (moment_ms - 1 - done.ts) // WEEK_MS
            vectors = self._vectors(done.user, done.item, age, shape)
            self._others = moment_ms, _Others.of(vectors)
        return self._others[1]

    def _vectors(self, owner: Int64, item: AnyArray, age: Int64, shape: tuple[int, int]) -> Tensor:
        """Return each owner's vector, sparse [shape]; items of one age in weeks are a basket."""
        config, order = self._config, np.lexsort((item, age, owner))
        owner, item, age = owner[order], item[order].astype(np.int64), age[order]
        first = first_of_groups(owner, age, item)
        owner, item, age = owner[first], item[first], age[first]
        basket = first_of_groups(owner, age)
        count = np.bincount(owner[basket], minlength=shape[0])
        place = np.arange(len(basket)) - starts_of(count)[owner[basket]]  # 0: the newest
        count, group = count[owner[basket]], place // config.group_size
        size = np.minimum(config.group_size, count - group * config.group_size)
        weight = config.within ** (place % config.group_size) / size
        weight *= config.between**group / -(-count // config.group_size)
        value = np.repeat(weight, np.diff(basket, append=len(owner))).astype(np.float32)
        places = torch.from_numpy(np.stack([owner, item]))
        return torch.sparse_coo_tensor(
            places, torch.from_numpy(value), shape, check_invariants=False
        ).coalesce()


class _Others(NamedTuple):
    """U users who may be near."""

    by_user: Tensor  # sparse [U, N]
    by_item: Tensor  # sparse [N, U]
    square: Tensor  # [U], squared lengths

    @classmethod
    def of(cls, vectors: Tensor) -> "_Others":
        square = torch.zeros(len(vectors))
        square.index_add_(0, vectors.indices()[0], vectors.values() ** 2)
        return cls(vectors, vectors.T.coalesce(), square)

    def nearest(self, own: Tensor, user: Int64, config: TifuConfig) -> Tensor:
        """Return the mean vector of those nearest to `own` [Q, N], without who asks."""
        apart = self.square[:, None] - 2 * (self.by_user @ own.T)  # but for what is alike for all
        apart[self.square == 0] = torch.inf
        known = np.flatnonzero(user < len(apart))
        apart[user[known], known] = torch.inf
        most = min(config.neighbours, len(apart))
        distance, place = apart.topk(most, dim=0, largest=False)
        near = torch.zeros_like(apart).scatter_(0, place, distance.isfinite().float())
        return (self.by_item @ (near / near.sum(0).clamp(min=1))).T


def flat(histories: Iterable[History]) -> tuple[Int64, AnyArray, Int64]:
    """Return (query, item, ts) of all tokens of the histories."""
    taken = list(histories)
    query = np.repeat(np.arange(len(taken)), [len(history.item) for history in taken])
    item = np.concatenate([np.zeros(0, np.int64), *(history.item for history in taken)])
    ts = np.concatenate([np.zeros(0, np.int64), *(history.ts for history in taken)])
    return query, item, ts
