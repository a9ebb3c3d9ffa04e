"""The items by row: what is known of each, and the short text that stands for it.

Rows are dense, append-only and given in order of first sight, so that everybody who applies the
same windows agrees on them. An item record replaces the whole item; the log's order decides, as
in a compacted topic.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.features.arrays import AnyArray, Column, Int32, column, grown, table_of
from ray_rec.features.examples import WINDOW_ITEMS_SCHEMA
from ray_rec.features.index import Index

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


class Catalogue:
    """Items by row. An item seen only in behaviour has no text yet and counts as available."""

    def __init__(self) -> None:
        self.index = Index()
        self._columns: dict[str, AnyArray] = {
            name: np.full(0, fill, _KINDS.get(name, object)) for name, fill in _FILLS.items()
        }

    def __len__(self) -> int:
        return len(self.index)

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

    def text(self, row: int) -> str:
        """Return the encoder's input for a row: title, category and brand; "" when unknown."""
        return str(self._columns["text"][row])

    def rows(self, ids: Column, add: bool = False) -> Int32:
        """Return the row of each item id, -1 when unknown; `add` gives unknown ones rows."""
        rows = self.index.rows(ids, add)
        if add:
            for name, values in self._columns.items():
                self._columns[name] = grown(values, len(self), _FILLS[name])
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
        return rows[(rows >= before) | self._replace(rows, new)]

    def _replace(self, rows: Int32, new: dict[str, AnyArray]) -> AnyArray:
        changed = np.zeros(len(rows), np.bool_)
        for name, values in new.items():
            old = self._columns[name][rows]
            differs = (old != values).astype(np.bool_)
            changed |= differs & ~((old != old) & (values != values))  # NaN is NaN
            self._columns[name][rows] = values
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
                "available": self._columns["available"][rows],
            },
            schema=WINDOW_ITEMS_SCHEMA,
        )

    def snapshot(self) -> pa.Table:
        """Return all rows as a table."""
        kinds = {"price": pa.float32(), "available": pa.bool_()}
        columns = {
            name: pa.array(values[: len(self)], kinds.get(name, pa.string()), from_pandas=False)
            for name, values in self._columns.items()
        }
        return table_of({"item_id": pa.array(self.index.ids, pa.string()), **columns})

    @classmethod
    def restore(cls, table: pa.Table) -> "Catalogue":
        """Return the catalogue that `snapshot` was taken of."""
        out = cls()
        out.index = Index(column(table, "item_id").to_pylist())
        out._columns = {
            name: column(table, name).to_numpy(zero_copy_only=False).copy() for name in _FILLS
        }
        return out


_TEXTS = ("title", "category", "brand")


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


def _last_of_each(rows: Int32) -> tuple[Int32, AnyArray]:
    """Return the distinct rows, ascending, and where each occurs last."""
    distinct, first_reversed = np.unique(rows[::-1], return_index=True)
    return distinct, len(rows) - 1 - first_reversed
