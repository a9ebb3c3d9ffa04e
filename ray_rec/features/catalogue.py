"""The items by row: what is known of each, and the short text that stands for it.

Rows are dense, append-only and given in order of first sight, so that everybody who applies the
same windows agrees on them. An item record replaces the whole item; the log's order decides, as
in a compacted topic.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.features.arrays import (
    AnyArray,
    Column,
    Int32,
    Int64,
    column,
    grown,
    hash_strings,
    table_of,
)
from ray_rec.features.config import GROUPS
from ray_rec.features.examples import WINDOW_ITEMS_SCHEMA
from ray_rec.features.index import Index
from ray_rec.features.part import Marks, Part

TEXT_CHARS = 512
"""Longer texts are cut: the encoder reads less than that, and a row's memory stays bounded."""

_FILLS: dict[str, Any] = {
    "title": None,
    "category": None,
    "brand": None,
    "price": np.float32(np.nan),
    "available": True,
    "text": "",
}
_KINDS: dict[str, Any] = {"price": np.float32, "available": np.bool_}
_ITEM_BYTES = 500
"""What an item takes beside the characters of its texts: five strings, places (measured)."""


class Catalogue(Part):
    """Items by row. An item seen only in behaviour has no text yet and counts as available."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self._columns: dict[str, AnyArray] = {
            name: np.full(0, fill, _KINDS.get(name, object)) for name, fill in _FILLS.items()
        }
        self._groups = np.zeros((0, len(GROUPS)), np.int64)
        self._chars = 0
        self._changed = Marks()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def num_bytes(self) -> int:
        """Bytes of all items and their texts."""
        return len(self) * _ITEM_BYTES + self._chars

    @property
    def item_id(self) -> list[str | None]:
        """Item id of each row."""
        return self.index.ids

    @property
    def title(self) -> AnyArray:
        """Title of each row (object array, None when unknown)."""
        return self._columns["title"][: len(self)]

    @property
    def category(self) -> AnyArray:
        """Category of each row (object array, None when unknown)."""
        return self._columns["category"][: len(self)]

    @property
    def brand(self) -> AnyArray:
        """Brand of each row (object array, None when unknown)."""
        return self._columns["brand"][: len(self)]

    @property
    def price(self) -> AnyArray:
        """Price of each row (float32, NaN when unknown)."""
        return self._columns["price"][: len(self)]

    @property
    def available(self) -> AnyArray:
        """Whether each row may be shown (bool); a removed item may not."""
        return self._columns["available"][: len(self)]

    @property
    def groups(self) -> Int64:
        """Keys of each row's text, category and brand, int64 [N, G]; see `group_keys`."""
        return self._groups[: len(self)]

    def text(self, row: int) -> str:
        """Return the encoder's input for a row: title, category and brand; "" when unknown."""
        return str(self._columns["text"][row])

    def rows(self, ids: Column, add: bool = False) -> Int32:
        """Return the row of each item id, -1 when unknown; `add` gives unknown ones rows."""
        before = len(self)
        rows = self.index.rows(ids, add)
        if len(self) > before:
            self._changed.add(np.arange(before, len(self)))
            for name, values in self._columns.items():
                self._columns[name] = grown(values, len(self), _FILLS[name])
            self._groups = grown(self._groups, len(self), 0)
        return rows

    def apply(self, items: pa.Table) -> Int32:
        """Take item records in (partition, offset) order; return rows new or changed, ascending.

        A removed item keeps its row, without attributes and not available.
        """
        before = len(self)
        rows, last = _last_of_each(self.rows(column(items, "item_id"), add=True))
        items = items.take(last)
        deleted = column(items, "deleted").fill_null(False)
        texts = {name: _unless(deleted, column(items, name)) for name in _FILLS if name in _TEXTS}
        new: dict[str, AnyArray] = {
            name: values.to_numpy(zero_copy_only=False) for name, values in texts.items()
        }
        price = _unless(deleted, column(items, "price")).cast(pa.float32(), safe=False)
        new["price"] = price.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        available = pc.and_(column(items, "available").fill_null(True), pc.invert(deleted))
        new["available"] = available.to_numpy(zero_copy_only=False)
        new["text"] = item_texts(*texts.values()).to_numpy(zero_copy_only=False)
        changed = rows[(rows >= before) | self._replace(rows, new)]
        self._changed.add(changed)
        return changed

    def _replace(self, rows: Int32, new: dict[str, AnyArray]) -> AnyArray:
        changed = np.zeros(len(rows), np.bool_)
        for name, values in new.items():
            old = self._columns[name][rows]
            differs = (old != values).astype(np.bool_)
            changed |= differs & ~((old != old) & (values != values))  # NaN is NaN
            if name not in _KINDS:
                self._chars += _num_chars(values) - _num_chars(old)
            self._columns[name][rows] = values
        self._groups[rows] = group_keys(*(new[name] for name in GROUPS))
        return changed

    def window_items(self, rows: Int32) -> pa.Table:
        """Return rows as WINDOW_ITEMS_SCHEMA."""
        places = rows.tolist()
        return table_of(
            {
                "row": rows,
                "item_id": pa.array([self.index.ids[row] for row in places], pa.string()),
                "text": pa.array(self._columns["text"][rows], pa.string()),
                "price": self._columns["price"][rows],
                "category": pa.array(self._columns["category"][rows], pa.string()),
                "brand": pa.array(self._columns["brand"][rows], pa.string()),
                "available": self._columns["available"][rows],
            },
            schema=WINDOW_ITEMS_SCHEMA,
        )

    def _segment(self, whole: bool) -> pa.Table:
        """One row an item, in order of first sight."""
        changed = self._changed.take()
        rows = np.arange(len(self)) if whole else changed
        kinds = {"price": pa.float32(), "available": pa.bool_()}
        columns = {
            name: pa.array(values[rows], kinds.get(name, pa.string()), from_pandas=False)
            for name, values in self._columns.items()
        }
        ids = [self.index.ids[row] for row in rows.tolist()]
        return table_of({"item_id": pa.array(ids, pa.string()), **columns})

    def _load(self, table: pa.Table) -> None:
        rows = self.rows(column(table, "item_id"), add=True)
        names = self._columns
        self._replace(rows, {n: column(table, n).to_numpy(zero_copy_only=False) for n in names})
        self._changed.clear()


_TEXTS = ("title", "category", "brand")


def group_keys(*names: AnyArray) -> Int64:
    """Return which items are alike, by a key of each of their `GROUPS`: int64 [n, G].

    A key is a hash of 63 bits, the same in every process; 0 where nothing is said.
    """
    out = np.zeros((len(names[0]), len(names)), np.int64)
    for place, values in enumerate(names):
        said = np.array([bool(name and name.strip()) for name in values.tolist()], np.bool_)
        hashed = hash_strings(pa.array(values[said], pa.string())) >> np.uint64(1)
        out[said, place] = hashed.astype(np.int64)
    return out


def item_texts(title: Any, category: Any, brand: Any) -> Any:
    """Return "title. category. brand" of each item, without parts that are null or blank."""
    parts = [pc.utf8_trim_whitespace(part) for part in (title, category, brand)]
    parts = [_unless(_blank(part), part) for part in parts]
    text: Any = parts[0]
    for part in parts[1:]:
        # Not null_handling="skip": it loses rows in which all parts are null (pyarrow 26).
        text = pc.coalesce(pc.binary_join_element_wise(text, part, ". "), text, part)
    return pc.utf8_slice_codeunits(text.fill_null(""), 0, TEXT_CHARS)


def _unless(mask: Any, values: Any) -> Any:
    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _blank(texts: Any) -> Any:
    return pc.equal(texts, pa.scalar("")).fill_null(True)


def _num_chars(texts: AnyArray) -> int:
    return sum(len(text) for text in texts.tolist() if text)


def _last_of_each(rows: Int32) -> tuple[Int32, AnyArray]:
    """Return the distinct rows, ascending, and where each occurs last."""
    distinct, first_reversed = np.unique(rows[::-1], return_index=True)
    return distinct, len(rows) - 1 - first_reversed
