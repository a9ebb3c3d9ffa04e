"""What each user did last: the newest `history_length` tokens by (event time, arrival).

Padded matrices with one row a user, so that a window touches them with a few gathers. A late event
takes its place by event time; the oldest tokens make room.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Column,
    Int32,
    Int64,
    UInt64,
    column,
    grown,
    hash_strings,
    list_array,
    lists,
    ragged_ranges,
    segment_search,
    starts_of,
    table_of,
)
from ray_rec.features.index import Index

_KINDS: dict[str, Any] = {"item": np.int32, "type": np.int8, "ts": np.int64}


class History(NamedTuple):
    """One user's tokens, oldest first: [n] each."""

    item: Int32
    type: AnyArray  # int8 event type codes
    ts: Int64  # ms


@dataclass(frozen=True)
class Sequences:
    """Tokens of several users one after another: user k has the places start[k] … start[k+1]-1."""

    users: Int64  # [K] rows of Histories, ascending
    start: Int64  # [K+1]
    tokens: dict[str, AnyArray]  # item, type, ts, each [start[K]]

    def owner(self, users: AnyArray) -> Int64:
        """Return k of each user row, which must be among `users`."""
        return np.searchsorted(self.users, users)

    def place(self, owner: Int64, at_ms: AnyArray) -> Int64:
        """Return the place of each owner's first token at or after a time."""
        return segment_search(self.tokens["ts"], self.start[owner], self.start[owner + 1], at_ms)

    def where(self, keep: Bool) -> "Sequences":
        """Return the tokens that `keep` [start[K]] marks."""
        kept = starts_of(keep)[self.start]
        return Sequences(self.users, kept, {n: v[keep] for n, v in self.tokens.items()})

    def slices(self, begin: Int64, length: Int64) -> dict[str, Column]:
        """Return the slices as list columns token_item, token_type and token_ts."""
        places, offsets = ragged_ranges(begin, length), starts_of(length)
        return {f"token_{n}": list_array(v[places], offsets) for n, v in self.tokens.items()}


class Histories:
    """User histories; `index` gives user rows, `user_hash` [rows] their stable hashes."""

    def __init__(self, length: int) -> None:
        self.history_length = length
        self.index = Index()
        self.user_hash: UInt64 = np.zeros(0, np.uint64)
        self._count: Int64 = np.zeros(0, np.int64)
        self._tokens: dict[str, AnyArray] = {
            name: np.zeros((0, length), kind) for name, kind in _KINDS.items()
        }

    def last(self, user_id: str) -> History:
        """Return a copy of a user's history; empty for an unknown user."""
        row = self.index.row(user_id)
        if row < 0:
            return History(*(np.zeros(0, kind) for kind in _KINDS.values()))
        return History(*(v[row, : self._count[row]].copy() for v in self._tokens.values()))

    def rows(self, user_ids: Column, add: bool = False) -> Int32:
        """Return the row of each user id, -1 when unknown; `add` gives unknown ones rows."""
        before = len(self.index)
        rows = self.index.rows(user_ids, add)
        after = len(self.index)
        if after > before:
            self._grow(after)
            new = pa.array(self.index.ids[before:], pa.string())
            self.user_hash[before:after] = hash_strings(new)
        return rows

    def merge(self, users: Int64, owner: Int64, new: dict[str, AnyArray]) -> Sequences:
        """Return the users' histories with new tokens in place.

        `users` are distinct ascending rows; the new tokens are sorted by (owner, ts, arrival),
        `owner` being a place in `users`. Nothing is stored: see `write`.
        """
        old_count, new_count = self._count[users], np.bincount(owner, minlength=len(users))
        start = starts_of(old_count + new_count)
        low = (users * self.history_length)[owner]
        flat = {name: values.reshape(-1) for name, values in self._tokens.items()}
        older = segment_search(flat["ts"], low, low + old_count[owner], new["ts"], "right") - low
        rank = np.arange(len(owner)) - starts_of(new_count)[owner]
        places = start[owner] + older + rank
        old = np.ones(start[-1], np.bool_)
        old[places] = False
        source = ragged_ranges(users * self.history_length, old_count)
        tokens = {}
        for name, kind in _KINDS.items():
            tokens[name] = np.empty(start[-1], kind)
            tokens[name][old] = flat[name][source]
            tokens[name][places] = new[name]
        return Sequences(users, start, tokens)

    def write(self, sequences: Sequences) -> None:
        """Store the newest tokens of each user of `sequences`, in place of what they had."""
        users, end = sequences.users, sequences.start[1:]
        count = np.minimum(np.diff(sequences.start), self.history_length)
        source = ragged_ranges(end - count, count)
        target = ragged_ranges(users * self.history_length, count)
        for name, values in sequences.tokens.items():
            self._tokens[name].reshape(-1)[target] = values[source]
        self._count[users] = count

    def drop(self, users: AnyArray) -> None:
        """Forget users altogether, their ids included."""
        self._count[users] = 0
        for row in users.tolist():
            self.index.drop(row)

    def evict(self, most: int) -> int:
        """Keep at most `most` users; return how many went.

        When there are more, 90 % of `most` stay: those active last. Rows of dropped users are freed
        with the next such pass, at the latest when they are the majority.
        """
        known = self.index.num_known
        if known <= most and len(self.index) - known <= max(known, 1024):
            return 0
        live = np.flatnonzero([name is not None for name in self.index.ids])
        if known > most:
            newest = self._tokens["ts"][live, np.maximum(self._count[live] - 1, 0)]
            newest = np.where(self._count[live] > 0, newest, 0)
            live = np.sort(live[np.argsort(newest, kind="stable")[-max(1, most * 9 // 10) :]])
        self.index = Index([self.index.ids[row] for row in live.tolist()])
        self.user_hash, self._count = self.user_hash[live], self._count[live]
        self._tokens = {name: values[live] for name, values in self._tokens.items()}
        return known - len(live)

    def _grow(self, rows: int) -> None:
        self.user_hash, self._count = grown(self.user_hash, rows, 0), grown(self._count, rows, 0)
        self._tokens = {name: grown(values, rows, 0) for name, values in self._tokens.items()}

    def snapshot(self) -> pa.Table:
        """Return one row a user: user_id and its tokens as lists."""
        live = np.flatnonzero([name is not None for name in self.index.ids])
        count = self._count[live]
        source = ragged_ranges(live * self.history_length, count)
        columns = {
            name: list_array(values.reshape(-1)[source], starts_of(count))
            for name, values in self._tokens.items()
        }
        ids = [self.index.ids[row] for row in live.tolist()]
        return table_of({"user_id": pa.array(ids, pa.string()), **columns})

    @classmethod
    def restore(cls, length: int, table: pa.Table) -> "Histories":
        """Return the histories that `snapshot` was taken of."""
        out = cls(length)
        users = out.rows(column(table, "user_id"), add=True).astype(np.int64)
        flat = {name: lists(table, name) for name in _KINDS}
        tokens = {name: values for name, (values, _) in flat.items()}
        out.write(Sequences(users, starts_of(flat["item"][1]), tokens))
        return out
