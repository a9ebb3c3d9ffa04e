"""What people asked about their own data, by event time: forget, opt_out, opt_in.

`forget` and `opt_out` erase what is older than they are, or as old; after an `opt_out` nothing
counts until an `opt_in` that is later. At the same time the stricter wins.
"""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int64,
    UInt64,
    first_of_groups,
    numbers,
    segment_search,
    table_of,
)
from ray_rec.features.part import Part

ALWAYS = np.int64(2**62)
"""A time after all others: what holds once everything known has been applied."""
NEVER = np.int64(-(2**62))

ACTION_CODES = {"opt_in": 0, "opt_out": 1, "forget": 2}


class Controls(Part):
    """The wishes of each user (by hash) in order of event time."""

    def __init__(self) -> None:
        super().__init__()
        empty = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int8)
        self._set(*empty, np.zeros(0, np.bool_))

    def __len__(self) -> int:
        return len(self._user)

    @property
    def num_bytes(self) -> int:
        """Bytes of all wishes and what follows of each."""
        return 27 * len(self)

    def add(self, user: UInt64, ts: Int64, action: AnyArray) -> None:
        """Take wishes; the order of arrival does not matter."""
        self._add(user, ts, action, new=True)

    def erased_until(self, user: UInt64, at_ms: AnyArray | np.int64) -> Int64:
        """Return for each user the time of the last erasure up to `at_ms` (NEVER when none)."""
        place, found = self._last(user, at_ms)
        return np.where(found, self._erased[place], NEVER) if len(self) else place + NEVER

    def opted_out(self, user: UInt64, at_ms: AnyArray | np.int64) -> Bool:
        """Return for each user whether they were opted out at `at_ms`."""
        place, found = self._last(user, at_ms)
        return found & self._out[place] if len(self) else found

    def erases(self, user: UInt64, ts: Int64, until: AnyArray | np.int64) -> Bool:
        """Return which records of time `ts` are opted out, or erased by a wish up to `until`."""
        if not len(self):
            return np.zeros(len(user), np.bool_)
        return self.opted_out(user, ts) | (self.erased_until(user, until) >= ts)

    def prune(self, horizon_ms: int) -> None:
        """Drop wishes older than the horizon that later ones, older as well, made void."""
        old = self._ts < horizon_ms
        last = np.zeros(len(self), np.bool_)
        for kind in (self._action >= 1, self._action <= 1):
            places = np.flatnonzero(old & kind)
            ends = np.append(first_of_groups(self._user[places])[1:], len(places)) - 1
            last[places[ends] if len(places) else places] = True
        keep = ~old | last
        if not keep.all():
            self._set(self._user[keep], self._ts[keep], self._action[keep], self._new[keep])

    def _last(self, user: UInt64, at_ms: AnyArray | np.int64) -> tuple[Int64, Bool]:
        low = np.searchsorted(self._user, user, side="left")
        high = np.searchsorted(self._user, user, side="right")
        place = segment_search(self._ts, low, high, at_ms, side="right") - 1
        return place, place >= low

    def _add(self, user: UInt64, ts: Int64, action: AnyArray, new: bool) -> None:
        held = self._user, self._ts, self._action, self._new
        joined = zip(held, (user, ts, action, np.full(len(user), new)), strict=True)
        self._set(*(np.concatenate(pair) for pair in joined))

    def _set(self, user: UInt64, ts: Int64, action: AnyArray, new: Bool) -> None:
        order = np.lexsort((action, ts, user))
        order = order[first_of_groups(user[order], ts[order], action[order])]
        self._user, self._ts, self._action = user[order], ts[order], action[order]
        self._new = new[order]  # not told yet; of equals the first counts, which was held before
        erasing = self._last_such(self._action >= 1)
        self._erased = np.where(erasing >= 0, self._ts[erasing], NEVER)
        choice = self._last_such(self._action <= 1)
        self._out = (choice >= 0) & (self._action[choice] == 1)

    def _last_such(self, such: Bool) -> Int64:
        """Return for each record the last place up to it, of the same user, that is such; or -1."""
        places = np.arange(len(such))
        first = np.zeros(len(such), np.int64)
        first[first_of_groups(self._user)] = first_of_groups(self._user)
        last = np.maximum.accumulate(np.where(such, places, -1))
        return np.where(last >= np.maximum.accumulate(first), last, -1)

    def _segment(self, whole: bool) -> pa.Table:
        """Wishes that still matter, by user, time and action."""
        rows = np.ones(len(self), np.bool_) if whole else self._new
        columns = {"user": self._user[rows], "ts": self._ts[rows], "action": self._action[rows]}
        self._new = np.zeros(len(self), np.bool_)
        return table_of(columns)

    def _load(self, table: pa.Table) -> None:
        user, ts, action = (numbers(table, name) for name in ("user", "ts", "action"))
        self._add(user, ts, action, new=False)
