"""What else people took who took an item: the newest of each item's company.

A token and the last few before it in its user's history are company to each other. Each item
remembers the newest `size` of its own, so what is asked of a person's last items is what goes with
them these days. Counts of all time, as in item-to-item filtering (Linden, Smith and York 2003),
drown what came lately. Memory is bounded, and an event costs the same at any size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Float32,
    Int32,
    Int64,
    first_of_groups,
    grown,
    list_array,
    lists,
    numbers,
    ragged_ranges,
    starts_of,
    table_of,
)
from ray_rec.features.config import FeatureConfig
from ray_rec.features.histories import History, Sequences
from ray_rec.features.part import Marks, Part
from ray_rec.features.recall import NewTokens

REACH = 10
"""So many tokens before a token are its company, and so many of a person's last ask for theirs."""
_POPULAR = 0.25
"""Popular items are in much company: support is divided by this power of their counts."""
_SCALE = 10.0


class Companions(NamedTuple):
    """Pairs of tokens that are company, n of them, ordered by the newer one."""

    token: Int64  # [n] the newer one's place among all new tokens, in the order of the log
    before: Int32  # [n] item of the older one; of one token's, the nearest first

    def within(self, begin: int, end: int) -> "Companions":
        """Return that of the tokens from `begin` to `end`."""
        some = slice(*np.searchsorted(self.token, (begin, end)))
        return Companions(self.token[some], self.before[some])


NO_COMPANIONS = Companions(np.zeros(0, np.int64), np.zeros(0, np.int32))


def reach_of(config: FeatureConfig) -> int:
    """Return how many tokens before a token are its company: no more than a history holds."""
    return min(REACH, config.history_length)


def companions(sequences: Sequences, new: NewTokens, reach: int) -> Companions:
    """Return the company of new tokens: the newest `reach` that were known when each arrived.

    A late token, older than what was known of its user, has none. So what is found does not depend
    on how the log was cut.
    """
    if not len(new.ts):
        return NO_COMPANIONS
    token = np.empty(len(new.ts), np.int64)
    token[np.lexsort((new.offset, new.partition))] = np.arange(len(token))
    place = _places(sequences, new)
    arrived = np.full(sequences.start[-1], -1)  # before all new ones
    arrived[place] = token
    low = sequences.place(new.owner, new.floor)
    at, left = place - 1, np.full(len(token), reach)
    asking = np.flatnonzero(_in_order(sequences.start, arrived)[place])
    found = [NO_COMPANIONS]
    while len(asking := asking[(at[asking] >= low[asking]) & (left[asking] > 0)]):
        known = asking[arrived[at[asking]] < token[asking]]
        found.append(Companions(token[known], sequences.tokens["item"][at[known]]))
        left[known] -= 1
        at[asking] -= 1
    return in_log_order(found)


def companions_of(user: Int64, item: AnyArray, reach: int) -> Companions:
    """Return the company of tokens that are known in the order in which they came, [n] each."""
    order = np.argsort(user, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(user[order], user[order])
    found = [NO_COMPANIONS]
    for back in range(1, reach + 1):
        some = np.flatnonzero(place >= back)
        found.append(Companions(order[some], item[order[some - back]]))
    return in_log_order(found)


def in_log_order(parts: Sequence[Companions]) -> Companions:
    """Return parts as one; of one token, those of earlier parts come first."""
    token, before = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(token, kind="stable")
    return Companions(token[order], before[order])


def _places(sequences: Sequences, new: NewTokens) -> Int64:
    """Return where new tokens, sorted by (owner, ts, arrival), stand among the sequences."""
    first = first_of_groups(new.owner, new.ts)
    size = np.diff(np.append(first, len(new.ts)))
    after = sequences.place(new.owner, new.ts + 1)
    return after - np.repeat(first + size, size) + np.arange(len(new.ts))


def _in_order(start: Int64, arrived: Int64) -> Bool:
    """Return which tokens arrived before all that stand after them in their user's sequence.

    Tokens stand in the order of (ts, arrival): where a later one had arrived before, this was late.
    """
    owner = np.repeat(np.arange(len(start) - 1), np.diff(start))
    key = owner * (len(arrived) + 1) + arrived
    out: Bool = key == np.minimum.accumulate(key[::-1])[::-1]
    return out


class Covisits(Part):
    """The newest `size` companions of each of N items; with 0 there are none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.num_items = 0
        self._ring: Int32 = np.zeros((0, size), np.int32)
        self._count: Int64 = np.zeros(0, np.int64)  # written so far: where the next one goes
        self._changed = Marks()

    @property
    def num_bytes(self) -> int:
        """Bytes of all companions."""
        return (4 * self.size + 8) * self.num_items

    def grow(self, num_items: int) -> None:
        """Make room for the rows 0 … num_items-1, without company."""
        if self.size and num_items > self.num_items:
            self._ring = grown(self._ring, num_items, 0)
            self._count = grown(self._count, num_items, 0)
            self.num_items = num_items

    def add(self, item: AnyArray, found: Companions) -> None:
        """Remember the company of new tokens, whose items are [tokens]; an item is not its own."""
        if not self.size:
            return
        pairs = np.stack([item[found.token], found.before], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        whose, who = pairs.ravel(), pairs[:, ::-1].ravel()
        order = np.argsort(whose, kind="stable")
        whose, who = whose[order], who[order]
        rows, first, count = np.unique(whose, return_index=True, return_counts=True)
        rank = np.arange(len(whose)) - np.repeat(first, count)
        newest = rank >= np.repeat(count, count) - self.size  # others would be overwritten at once
        whose, who, rank = whose[newest], who[newest], rank[newest]
        self._ring[whose, (self._count[whose] + rank) % self.size] = who
        self._count[rows] += count
        self._changed.add(rows)

    def support(self, items: AnyArray, popularity: Float32) -> Float32 | None:
        """Return how much each item is in the company of a person's last items, float32 [N].

        With c companions remembered of each of them, n of these being item j, that is
        log1p(10 · Σ n/√c / (1 + count of j)^¼); None where none is remembered of any item.

        Args:
            items: rows of what the person took, the newest last.
            popularity: [N, P], log1p counts of the longest horizon last.
        """
        if not self.size:
            return None
        out = np.zeros(len(popularity), np.float32)
        asking = items[-REACH:]
        asking = asking[asking < self.num_items]
        held = np.minimum(self._count[asking], self.size)
        place = ragged_ranges(np.zeros(len(held), np.int64), held)
        who = self._ring[np.repeat(asking, held), place]
        weight = np.repeat(1 / np.sqrt(np.maximum(held, 1)), held)
        here = who < len(out)
        total = np.bincount(who[here], weight[here], minlength=len(out))
        found = np.flatnonzero(total)
        usual = np.exp(popularity[found, -1].astype(np.float64))  # 1 + the count
        out[found] = np.log1p(_SCALE * total[found] / usual**_POPULAR)
        return out

    def supports(self, histories: Sequence[History], popularity: Float32) -> Float32 | None:
        """Return `support` of each of several people, float32 [Q, N], or None."""
        found = [self.support(history.item, popularity) for history in histories]
        known = [support for support in found if support is not None]
        return np.stack(known) if known else None

    def copy(self) -> "Covisits":
        """Return what is remembered now, apart from what comes."""
        out = Covisits(self.size)
        out.num_items, out._ring, out._count = self.num_items, self._ring.copy(), self._count.copy()
        return out

    def _segment(self, whole: bool) -> pa.Table:
        """Companions by item, the oldest first; items without any are left out."""
        changed = self._changed.take()
        rows = np.flatnonzero(self._count) if whole else changed
        held = np.minimum(self._count[rows], self.size)
        place = ragged_ranges(self._count[rows] - held, held) % max(1, self.size)
        who = self._ring[np.repeat(rows, held), place]
        return table_of({"item": rows, "who": list_array(who, starts_of(held))})

    def _load(self, table: pa.Table) -> None:
        rows, (who, held) = numbers(table, "item"), lists(table, "who")
        self.grow(int(rows.max(initial=-1)) + 1)
        place = ragged_ranges(np.zeros_like(held), held)
        self._ring[np.repeat(rows, held), place] = who
        self._count[rows] = held
        self._changed.clear()
