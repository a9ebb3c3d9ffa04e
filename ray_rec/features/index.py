"""Text ids to dense rows, in order of first sight; rows are never given twice."""

from itertools import count, repeat
from typing import Any

import numpy as np

from ray_rec.features.arrays import Column, Int32


class Index:
    """A growing mapping of ids to rows 0, 1, 2, …; `ids[row]` is the way back.

    >>> import pyarrow as pa
    >>> index = Index()
    >>> index.rows(pa.array(["b", "a", "b"]), add=True).tolist(), index.ids
    ([0, 1, 0], ['b', 'a'])
    >>> index.rows(pa.array(["a", "z"])).tolist()
    [1, -1]
    """

    def __init__(self, ids: list[str | None] | None = None) -> None:
        self.ids: list[str | None] = ids or []
        self._rows = {name: row for row, name in enumerate(self.ids) if name is not None}

    def __len__(self) -> int:
        """Rows given so far, forgotten ones included."""
        return len(self.ids)

    @property
    def num_known(self) -> int:
        """Ids that can be found, thus without forgotten ones."""
        return len(self._rows)

    def row(self, name: str) -> int:
        """Return the row of one id, -1 when unknown."""
        return self._rows.get(name, -1)

    def rows(self, names: Column, add: bool = False) -> Int32:
        """Return the row of each id, -1 when unknown; `add` gives unknown ones the next rows."""
        wanted: list[Any] = names.to_pylist()
        rows = self._look_up(wanted)
        missing = np.flatnonzero(rows < 0)
        if add and len(missing):
            new = dict.fromkeys(wanted[place] for place in missing.tolist())
            self._rows.update(zip(new, count(len(self.ids)), strict=False))
            self.ids.extend(new)
            rows[missing] = self._look_up([wanted[place] for place in missing.tolist()])
        return rows

    def _look_up(self, names: list[Any]) -> Int32:
        return np.fromiter(map(self._rows.get, names, repeat(-1)), np.int32, len(names))

    def drop(self, row: int) -> None:
        """Forget the id of a row; the row stays unused."""
        name = self.ids[row]
        if name is not None:
            del self._rows[name]
            self.ids[row] = None
