"""What each user did last: the newest `history_length` tokens by (event time, arrival).

Ragged rows, one a user, so that a window touches them with a few gathers. A late event takes its
place by event time; the oldest tokens make room. Users come in order of first sight.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    numbers,
    ragged_ranges,
    segment_search,
    starts_of,
    table_of,
)
from ray_rec.features.blocks import Blocks
from ray_rec.features.index import Index
from ray_rec.features.part import Marks, Part

_KINDS: dict[str, Any] = {"item": np.int32, "type": np.int8, "ts": np.int64}
_TOKEN_BYTES: int = sum(np.dtype(kind).itemsize for kind in _KINDS.values())
USER_BYTES = 300
"""What a user takes beside the tokens: the id, its place in the index, the row (measured)."""


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


class Histories(Part):
    """User histories; `index` gives user rows, `user_hash` [rows] their stable hashes."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.history_length = length
        self.index = Index()
        self.user_hash: UInt64 = np.zeros(0, np.uint64)
        self._tokens = Blocks(_KINDS, length)
        self._changed, self._gone = Marks(), Marks()  # rows; hashes of users dropped

    @property
    def num_bytes(self) -> int:
        """Bytes of all users and their tokens."""
        return self.index.num_known * USER_BYTES + self._tokens.total * _TOKEN_BYTES

    def last(self, user_id: str) -> History:
        """Return a copy of a user's history; empty for an unknown user."""
        row = self.index.row(user_id)
        if row < 0:
            return History(*(np.zeros(0, kind) for kind in _KINDS.values()))
        start = int(self._tokens.start[row])
        places = slice(start, start + int(self._tokens.count[row]))
        return History(*(values[places].copy() for values in self._tokens.values.values()))

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
        flat = self._tokens.values
        old_count, new_count = self._tokens.count[users], np.bincount(owner, minlength=len(users))
        start = starts_of(old_count + new_count)
        low = self._tokens.start[users][owner]
        older = segment_search(flat["ts"], low, low + old_count[owner], new["ts"], "right") - low
        rank = np.arange(len(owner)) - starts_of(new_count)[owner]
        places = start[owner] + older + rank
        old = np.ones(start[-1], np.bool_)
        old[places] = False
        source = self._tokens.places(users)
        tokens = {}
        for name, kind in _KINDS.items():
            tokens[name] = np.empty(start[-1], kind)
            tokens[name][old] = flat[name][source]
            tokens[name][places] = new[name]
        return Sequences(users, start, tokens)

    def write(self, sequences: Sequences, changed: Int64) -> None:
        """Store the newest tokens of those who changed (places in `sequences.users`)."""
        end = sequences.start[1:][changed]
        count = np.minimum(end - sequences.start[changed], self.history_length)
        source = ragged_ranges(end - count, count)
        users = sequences.users[changed]
        self._tokens.write(users, count, {n: v[source] for n, v in sequences.tokens.items()})
        self._changed.add(users)

    def drop(self, users: AnyArray) -> None:
        """Forget users altogether, their ids included."""
        self._tokens.clear(users)
        for row in users.tolist():
            self.index.drop(row)
        self._gone.add(self.user_hash[users])
        if len(self._gone) > self.index.num_known:  # naming the gone takes more than the rest
            self._gone.clear()
            self._rewrite = True

    def drop_idle(self, before_ms: int) -> int:
        """Drop the users whose newest token is older; return how many."""
        users, newest = self._newest()
        idle = users[newest < before_ms]
        self.drop(idle)
        return len(idle)

    def drop_beyond(self, most_bytes: float) -> int:
        """Keep to at most `most_bytes`; return how many users went.

        When there is more, 90 % of it stay: the users active last; of equals, the latest known.
        """
        if self.num_bytes <= most_bytes:
            return 0
        users, newest = self._newest()
        users = users[np.argsort(newest, kind="stable")[::-1]]
        taken = np.cumsum(USER_BYTES + self._tokens.count[users] * _TOKEN_BYTES)
        beyond = np.sort(users[taken > 0.9 * most_bytes])
        self.drop(beyond)
        return len(beyond)

    def pack(self) -> None:
        """Give rows of dropped users free once they are the majority."""
        known = self.index.num_known
        if len(self.index) - known <= max(known, 1024):
            return
        live = self._live()
        changed = self._changed.take()
        self._changed.add(np.searchsorted(live, changed[self._tokens.count[changed] > 0]))
        self.index = Index([self.index.ids[row] for row in live.tolist()])
        self.user_hash = self.user_hash[live]
        self._tokens.keep(live)

    def _live(self) -> Int64:
        """Return the rows of known users: those with tokens, ascending."""
        return np.flatnonzero(self._tokens.count[: len(self.index)])

    def _newest(self) -> tuple[Int64, Int64]:
        """Return the known users' rows and the time of each one's newest token."""
        users = self._live()
        return users, self._tokens.values["ts"][
            self._tokens.start[users] + self._tokens.count[users] - 1
        ]

    def _grow(self, rows: int) -> None:
        self.user_hash = grown(self.user_hash, rows, 0)
        self._tokens.grow(rows)

    def _segment(self, whole: bool) -> pa.Table:
        """One row a user: hash, user_id and tokens as lists; those gone first, with nulls."""
        changed, gone = self._changed.take(), self._gone.take().astype(np.uint64)
        rows = self._live() if whole else changed[self._tokens.count[changed] > 0]
        places, start = self._tokens.places(rows), starts_of(self._tokens.count[rows])
        tokens = {n: list_array(v[places], start) for n, v in self._tokens.values.items()}
        ids = pa.array([self.index.ids[row] for row in rows.tolist()], pa.string())
        known = table_of({"user": self.user_hash[rows], "user_id": ids, **tokens})
        if whole or not len(gone):
            return known
        lost = table_of({"user": gone}, pa.schema([known.schema.field("user")]))
        return pa.concat_tables([lost, known], promote_options="default").combine_chunks()

    def _load(self, table: pa.Table) -> None:
        named = column(table, "user_id").is_valid()
        lost = numbers(table.filter(pc.invert(named)), "user")
        live = self._live()
        rows = live[np.isin(self.user_hash[live], lost)] if len(lost) else live[:0]
        self._tokens.clear(rows)
        for row in rows.tolist():
            self.index.drop(row)
        table = table.filter(named)
        users = self.rows(column(table, "user_id"), add=True).astype(np.int64)
        flat = {name: lists(table, name) for name in _KINDS}
        tokens = {name: values for name, (values, _) in flat.items()}
        self._tokens.write(users, flat["item"][1], tokens)
