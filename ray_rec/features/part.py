"""How the state is kept: each part tells all of itself, or what changed, as one table.

A segment is such a table of every part. The first of a chain is whole; each later one is laid over
what those before it gave, and costs what changed. A part of which all has changed writes itself
whole and says so: what older segments hold of it is then passed over.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ray_rec.errors import StateError
from ray_rec.features.arrays import AnyArray

_WHOLE = b"whole"
_SLACK = 16_384


class Part(ABC):
    """One component of the state, by the tables it is kept as."""

    always_whole: ClassVar[bool] = False
    """For parts so small that there is nothing to gain from changes."""

    def __init__(self) -> None:
        self._rewrite = True  # the next changes() must be whole: nothing was told yet

    def snapshot(self) -> pa.Table:
        """Return everything: enough to go on exactly. Changes count from here."""
        return self._tell(whole=True)

    def changes(self) -> pa.Table:
        """Return what changed since the last `snapshot` or `changes`; everything before any."""
        return self._tell(whole=self._rewrite)

    def restore(self, tables: Sequence[pa.Table]) -> None:
        """Take in what the tables of one chain tell, oldest first.

        The part is new, or holds what other owners of users told; then the next is another's.
        Raises StateError when no table is whole. Changes count from here.
        """
        whole = [n for n, table in enumerate(tables) if is_whole(table)]
        if not whole:
            raise StateError("these are only changes of a state: give the full snapshot first")
        for table in tables[whole[-1] :]:
            self._load(table)
        self._rewrite = self.always_whole

    def _tell(self, whole: bool) -> pa.Table:
        table = self._segment(whole)
        self._rewrite = self.always_whole
        return table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _WHOLE: b"1" if whole else b"0"}
        )

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """What is held, about: a function of the content, so a restored state counts alike."""

    @abstractmethod
    def _segment(self, whole: bool) -> pa.Table:
        """Return all rows, or those changed since the last call; either way none is changed now."""

    @abstractmethod
    def _load(self, table: pa.Table) -> None:
        """Lay a segment over what is held, which leaves nothing marked as changed."""


class Marks:
    """Rows or keys (integers) that changed; memory grows with how many differ, not with calls."""

    def __init__(self) -> None:
        self._parts: list[AnyArray] = []
        self._size, self._limit = 0, _SLACK

    def __len__(self) -> int:
        """How many are marked; one that was marked again may count again."""
        return self._size

    def add(self, rows: AnyArray) -> None:
        """Mark rows."""
        self._parts.append(rows)
        self._size += len(rows)
        if self._size > self._limit:
            self._parts = [self._distinct()]
            self._size = len(self._parts[0])
            self._limit = 2 * self._size + _SLACK

    def take(self) -> AnyArray:
        """Return the marked rows, ascending, and mark none."""
        rows = self._distinct()
        self.clear()
        return rows

    def clear(self) -> None:
        """Mark none."""
        self._parts, self._size, self._limit = [], 0, _SLACK

    def _distinct(self) -> AnyArray:
        return np.unique(np.concatenate(self._parts)) if self._parts else np.zeros(0, np.int64)


def is_whole(table: pa.Table) -> bool:
    """Return whether a part's table is all of it, not only its changes."""
    return (table.schema.metadata or {}).get(_WHOLE) == b"1"
