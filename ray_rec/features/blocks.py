"""Ragged rows in one arena: most users did little, so a row takes what it needs, not the most.

Each row has a block of the next power of two. A row that outgrows its block moves to one of the
next size; the old one waits for another row. Packed anew when less than half is in use.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ray_rec.features.arrays import AnyArray, Int64, grown, ragged_ranges, starts_of

_SLACK = 4096
_PACKED_AT_ONCE = 65_536


class Blocks:
    """Rows of 0 … `longest` values in several columns; `kinds` gives each column its dtype.

    Values lie at `start[row] … start[row] + count[row] - 1` of `values[name]`.
    """

    def __init__(self, kinds: Mapping[str, Any], longest: int) -> None:
        self.start: Int64 = np.zeros(0, np.int64)
        self.count: AnyArray = np.zeros(0, np.int32)
        self.values: dict[str, AnyArray] = {n: np.zeros(0, kind) for n, kind in kinds.items()}
        self.total: int = 0  # values over all rows
        powers = [2**n for n in range(1, 31) if 2**n < longest]
        self._sizes = np.array([0, *powers, longest])
        self._kind: AnyArray = np.zeros(0, np.int8)  # place of each row's block in _sizes
        self._free: list[list[int]] = [[] for _ in self._sizes]
        self._end = self._used = 0

    def grow(self, rows: int) -> None:
        """Make room for the rows 0 … rows-1, empty."""
        self.start, self.count = grown(self.start, rows, 0), grown(self.count, rows, 0)
        self._kind = grown(self._kind, rows, 0)

    def places(self, rows: AnyArray) -> Int64:
        """Return where the values of rows lie, row after row."""
        return ragged_ranges(self.start[rows], self.count[rows])

    def write(self, rows: AnyArray, count: AnyArray, values: Mapping[str, AnyArray]) -> None:
        """Give distinct rows `count` values each, in place of what they had."""
        self._reserve(rows, np.searchsorted(self._sizes, count))
        self.total += int(count.sum()) - int(self.count[rows].sum())
        self.count[rows] = count
        places = self.places(rows)
        for name, new in values.items():
            self.values[name][places] = new
        if self._end > 2 * self._used + _SLACK:
            self._pack()

    def clear(self, rows: AnyArray) -> None:
        """Take distinct rows' values and blocks."""
        self.total -= int(self.count[rows].sum())
        self.count[rows] = 0
        self._release(rows)

    def keep(self, rows: AnyArray) -> None:
        """Number these rows 0, 1, …; the others must have been cleared."""
        self.start, self.count, self._kind = self.start[rows], self.count[rows], self._kind[rows]

    def _reserve(self, rows: AnyArray, kind: AnyArray) -> None:
        moving = kind > self._kind[rows]
        rows, kind = rows[moving], kind[moving]
        self._release(rows)
        for each in np.unique(kind).tolist():
            self._place(rows[kind == each], each)

    def _place(self, rows: AnyArray, kind: int) -> None:
        size, free = int(self._sizes[kind]), self._free[kind]
        first_new = max(0, len(free) - len(rows))
        again = free[first_new:]
        del free[first_new:]
        new = self._end + size * np.arange(len(rows) - len(again))
        self.start[rows] = np.concatenate([np.array(again, np.int64), new])
        self._kind[rows] = kind
        self._end += size * len(new)
        self._used += size * len(rows)
        self.values = {name: grown(v, self._end, 0) for name, v in self.values.items()}

    def _release(self, rows: AnyArray) -> None:
        kind = self._kind[rows]
        for each in np.unique(kind[kind > 0]).tolist():
            self._free[each].extend(self.start[rows[kind == each]].tolist())
        self._used -= int(self._sizes[kind].sum())
        self._kind[rows] = 0

    def _pack(self) -> None:
        """Lay the rows side by side; in pieces, as the places alone outweigh the values."""
        self._kind = np.searchsorted(self._sizes, self.count).astype(np.int8)
        start = starts_of(self._sizes[self._kind])
        old, self.values = (
            self.values,
            {n: np.zeros(start[-1], v.dtype) for n, v in self.values.items()},
        )
        for begin in range(0, len(self.count), _PACKED_AT_ONCE):
            piece = slice(begin, begin + _PACKED_AT_ONCE)
            source = ragged_ranges(self.start[piece], self.count[piece])
            target = ragged_ranges(start[:-1][piece], self.count[piece])
            for name, values in self.values.items():
                values[target] = old[name][source]
        self.start, self._end, self._used = start[:-1], int(start[-1]), int(start[-1])
        self._free = [[] for _ in self._sizes]
