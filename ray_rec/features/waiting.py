"""Rows that wait for something: added at the end, taken out anywhere, known by their number."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.features.arrays import Bool, Int64, arrow, numbers, table_of
from ray_rec.features.part import Marks, Part, is_whole


class Waiting(Part):
    """A table whose rows come and go; each has the next number, and none is given twice."""

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__()
        self.rows = schema.empty_table()
        self._number: Int64 = np.zeros(0, np.int64)  # of each row, ascending
        self._next = self._told = 0  # numbers below `_told` have been told
        self._first = 0  # what stands for number 0 of the chain that is loaded
        self._gone = Marks()

    @property
    def num_bytes(self) -> int:
        """Bytes of all columns."""
        columns = (self.rows.column(name) for name in self.rows.column_names)
        return 8 * len(self._number) + sum(map(_num_bytes, columns))

    def add(self, rows: pa.Table) -> None:
        """Take rows of the same schema."""
        self.rows = pa.concat_tables([self.rows, rows])
        first, self._next = self._next, self._next + rows.num_rows
        self._number = np.append(self._number, np.arange(first, self._next))

    def remove(self, gone: Bool) -> None:
        """Drop the rows that are marked."""
        if gone.any():
            lost, self._number = self._number[gone], self._number[~gone]
            self._gone.add(lost[lost < self._told])
            self.rows = self.rows.filter(pa.array(~gone)).combine_chunks()

    def replace(self, gone: Bool, rows: pa.Table) -> None:
        """Drop the rows that are marked, and take others at the end."""
        self.remove(gone)
        if rows.num_rows:
            self.add(rows)

    def _segment(self, whole: bool) -> pa.Table:
        """The rows by number; those gone first, with nulls."""
        gone = self._gone.take()
        first = 0 if whole else int(np.searchsorted(self._number, self._told))
        self._told = self._next
        table = self.rows.slice(first).add_column(0, _NUMBER, arrow(self._number[first:]))
        if len(gone) and not whole:
            lost = table_of({"number": gone}, pa.schema([_NUMBER]))
            table = pa.concat_tables([lost, table], promote_options="default")
        return table.replace_schema_metadata({"next": str(self._next)})

    def _load(self, table: pa.Table) -> None:
        if is_whole(table):
            self._first = self._next
        number = self._first + numbers(table, "number")
        new = number >= self._next  # what was told before can only be gone
        self.remove(np.isin(self._number, number[~new]))
        rows = table.filter(pa.array(new)).select(self.rows.column_names)
        self.rows = pa.concat_tables([self.rows, rows.cast(self.rows.schema)])
        self._number = np.append(self._number, number[new])
        self._next = self._told = self._first + int(table.schema.metadata[b"next"])
        self._gone.clear()


_NUMBER: Any = pa.field("number", pa.int64())


def _num_bytes(values: Any) -> int:
    if pa.types.is_list(values.type):
        return 4 * len(values) + _num_bytes(pc.list_flatten(values))
    return int(len(values) * values.type.bit_width // 8)
