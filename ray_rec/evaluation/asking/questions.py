"""What a backtest asks in a window: who will take what next, and what was done meanwhile.

Both come from the window's example rows, so duplicates, wishes and types are dealt with as in
learning, and a query's context holds nothing of its own time or later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Int64,
    UInt64,
    column,
    mix,
    numbers,
    ragged_ranges,
    segment_search,
)
from ray_rec.features.examples import EVENTS_CODE, Batch, collate
from ray_rec.features.histories import History
from ray_rec.features.index import Index


@dataclass(frozen=True)
class Interactions:
    """Things done, n of them, ordered by (user, ts): what rankers learn from."""

    user: Int64  # code, dense from 0 in order of first sight
    item: Int64  # catalogue row
    ts: Int64  # ms
    type: AnyArray  # int8 codes of `FeatureConfig.event_types`

    def take(self, places: AnyArray) -> Self:
        """Return what is at places, in their order."""
        return type(self)(*(getattr(self, f.name)[places] for f in fields(self)))

    def before(self, users: Int64, at_ms: Int64) -> tuple[Int64, Int64]:
        """Return (query, place) of all that each user [Q] had done strictly before a time [Q]."""
        low = np.searchsorted(self.user, users, "left")
        high = np.searchsorted(self.user, users, "right")
        earlier = np.empty(len(users), np.int64)
        for query, (start, end, at) in enumerate(
            zip(low.tolist(), high.tolist(), at_ms.tolist(), strict=True)
        ):
            earlier[query] = np.searchsorted(self.ts[start:end], at)
        return np.repeat(np.arange(len(users)), earlier), ragged_ranges(low, earlier)


def joined(parts: Sequence[Interactions]) -> Interactions:
    """Return all parts as one; what is equal in user and time stays in the order of the parts."""
    names = [f.name for f in fields(Interactions)]
    whole = Interactions(
        *(np.concatenate([np.zeros(0, int), *(getattr(p, n) for p in parts)]) for n in names)
    )
    return whole.take(np.lexsort((whole.ts, whole.user)))


@dataclass(frozen=True)
class Queries:
    """Q questions in time, and the T answers that came: distinct items, at least one a query."""

    user: Int64  # [Q]
    ts: Int64  # [Q] ms
    histories: list[History]  # [Q] the newest tokens strictly before
    target_query: Int64  # [T] -> Q, ascending
    target_item: Int64  # [T] catalogue row
    fresh: Interactions
    """The window's own interactions: those before a query's time are known to it."""
    num_items: int

    def __len__(self) -> int:
        """Return Q."""
        return len(self.user)

    def taken_meanwhile(self) -> Int64:
        """Return how often each target's item is in `fresh` strictly before its question, [T]."""
        order = np.lexsort((self.fresh.ts, self.fresh.item))
        item, ts = self.fresh.item[order], self.fresh.ts[order]
        low = np.searchsorted(item, self.target_item, "left")
        high = np.searchsorted(item, self.target_item, "right")
        return segment_search(ts, low, high, self.ts[self.target_query]) - low

    def past(self) -> Int64:
        """Return how much each query's history holds, [Q]."""
        return np.array([len(history.item) for history in self.histories], np.int64)

    def part(self, start: int, end: int) -> Self:
        """Return queries start … end-1."""
        low, high = np.searchsorted(self.target_query, [start, end])
        return type(self)(
            self.user[start:end],
            self.ts[start:end],
            self.histories[start:end],
            self.target_query[low:high] - start,
            self.target_item[low:high],
            self.fresh,
            self.num_items,
        )


class Users:
    """Codes of users, found through the record that an example row came from."""

    def __init__(self) -> None:
        self._index = Index()
        self._of_record: dict[tuple[int, int, int], int] = {}

    def note(self, topic_code: int, records: pa.Table) -> None:
        """Remember who decoded records belong to, until rows made of them are asked for."""
        codes = self._index.rows(column(records, "user_id"), add=True).tolist()
        partition, offset = (numbers(records, name).tolist() for name in ("partition", "offset"))
        for place, code in zip(zip(partition, offset, strict=True), codes, strict=True):
            self._of_record[topic_code, *place] = code

    def of(self, rows: pa.Table) -> Int64:
        """Return the user code of each example row [B]."""
        keys = (numbers(rows, name).tolist() for name in ("topic_code", "partition", "offset"))
        return np.array([self._of_record[key] for key in zip(*keys, strict=True)], np.int64)

    def forget(self, topic_code: int) -> None:
        """Let go of records whose rows have all been made."""
        self._of_record = {k: v for k, v in self._of_record.items() if k[0] != topic_code}


def questions(
    rows: pa.Table, users: Users, num_items: int, max_queries: int
) -> tuple[Queries, Interactions]:
    """Return a window's questions and all its interactions.

    Args:
        rows: the window's examples (EXAMPLES_SCHEMA); only those of events are taken.
        users: knows the records that the rows came from.
        num_items: items of the catalogue, N.
        max_queries: at most so many queries, those with the smallest stable hash; 0: all.
    """
    rows = rows.filter(pa.array(numbers(rows, "topic_code") == EVENTS_CODE))
    batch = collate(rows, 1)
    user = users.of(rows)[batch.query_row]
    done = _interactions(batch, user)
    chosen = _sample(batch, max_queries)
    place = np.full(len(user), -1)
    place[chosen] = np.arange(len(chosen))
    asked = place[batch.target_query] >= 0
    pairs = np.stack([place[batch.target_query[asked]], batch.target_item[asked]])
    query, item = np.unique(pairs, axis=1)
    histories = [_history(batch, q) for q in chosen.tolist()]
    ts = batch.query_ts[chosen]
    return Queries(user[chosen], ts, histories, query, item, done, num_items), done


def interactions(rows: pa.Table, users: Users) -> Interactions:
    """Return all that the example rows of events tell was done."""
    rows = rows.filter(pa.array(numbers(rows, "topic_code") == EVENTS_CODE))
    batch = collate(rows, 1)
    return _interactions(batch, users.of(rows)[batch.query_row])


def _interactions(batch: Batch, user: Int64) -> Interactions:
    who, when = user[batch.target_query], batch.query_ts[batch.target_query]
    order = np.lexsort((when, who))
    done = Interactions(who, batch.target_item, when, batch.target_type)
    return done.take(order)


def _sample(batch: Batch, most: int) -> Int64:
    """Return queries with targets, ascending; the choice depends on the query alone."""
    asked: Int64 = np.unique(batch.target_query)
    if not 0 < most < len(asked):
        return asked
    key: UInt64 = mix(batch.key[batch.query_row[asked]], batch.query_ts[asked])
    return np.sort(asked[np.argsort(key, kind="stable")[:most]])


def _history(batch: Batch, query: int) -> History:
    row, end = batch.query_row[query], batch.query_context[query]
    tokens: list[AnyArray] = [batch.item[row, :end], batch.type[row, :end], batch.ts[row, :end]]
    return History(tokens[0].astype(np.int32), tokens[1].astype(np.int8), tokens[2])
