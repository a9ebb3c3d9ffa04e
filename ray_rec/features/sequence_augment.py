"""Other tellings of what a user did, for learning: cut shorter, with gaps, in another order.

Each takes rows of EXAMPLES_SCHEMA and changes their tokens alone: targets and shown items stay, and
a query never sees a token that it did not see before. What happens follows from a hash of the row's
identity and the number of the draw. A share of 0 leaves every row as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Float64,
    Int64,
    UInt64,
    list_array,
    lists,
    mix,
    ragged_ranges,
    starts_of,
)
from ray_rec.features.examples import EXAMPLES_SCHEMA, row_keys
from ray_rec.features.text_augment import check_share

MASKED = -1
"""Stands in `token_item` for an item that is not told; type and time are."""

_TOKENS = ("token_item", "token_type", "token_ts")
_CROPPED, _MASKED, _WHERE, _ORDER = range(4)
"""Tell draws of different kinds over the same row apart."""


@dataclass(frozen=True)
class SequenceAugment:
    """How much of a row's tokens each transform touches (CL4SRec: Xie et al. 2022)."""

    crop: float = 0.0
    mask: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        """Check the shares."""
        for name in ("crop", "mask", "reorder"):
            check_share(name, getattr(self, name))

    def __call__(self, rows: pa.Table, draw: int) -> pa.Table:
        """Return the rows told in the `draw`-th other way; they keep order and identity."""
        if self.crop:
            rows = crop(rows, self.crop, draw)
        if self.reorder:
            rows = reorder(rows, self.reorder, draw)
        return mask(rows, self.mask, draw) if self.mask else rows


def crop(rows: pa.Table, share: float, draw: int) -> pa.Table:
    """Drop the oldest tokens of each row: from none to `share` of them.

    A query that saw these alone asks as a user of whom nothing is known.
    """
    length = lists(rows, "token_item")[1]
    most = np.floor(share * length).astype(np.int64)
    chance = _chance(row_keys(rows), np.zeros(len(length), np.int64), draw, _CROPPED)
    dropped = np.minimum((chance * (most + 1)).astype(np.int64), most)
    kept = ragged_ranges(starts_of(length)[:-1] + dropped, length - dropped)
    bounds = starts_of(length - dropped)
    columns = {name: list_array(lists(rows, name)[0][kept], bounds) for name in _TOKENS}
    context, queries = lists(rows, "query_context")
    seen = np.maximum(context - np.repeat(dropped, queries), 0)
    columns["query_context"] = list_array(seen.astype(context.dtype), starts_of(queries))
    return _with(rows, columns)


def mask(rows: pa.Table, share: float, draw: int) -> pa.Table:
    """Leave the item of each token untold with the chance `share`."""
    item, length = lists(rows, "token_item")
    row, place = _places(length)
    hidden = _chance(row_keys(rows)[row], place, draw, _MASKED) < share
    told = np.where(hidden, item.dtype.type(MASKED), item)
    return _with(rows, {"token_item": list_array(told, starts_of(length))})


def reorder(rows: pa.Table, share: float, draw: int) -> pa.Table:
    """Shuffle a run of `share` of each row's tokens; the times stay where they are.

    Where queries come in between, only tokens that are between the same two change places.
    """
    length = lists(rows, "token_item")[1]
    row, place = _places(length)
    keys = row_keys(rows)
    span = np.floor(share * length).astype(np.int64)
    begin = _chance(keys, np.zeros(len(keys), np.int64), draw, _WHERE) * (length - span + 1)
    since = place - begin.astype(np.int64)[row]
    inside = (since >= 0) & (since < span[row])
    new = np.ones(len(row), np.bool_)
    new[1:] = ~(inside[1:] & inside[:-1] & (row[1:] == row[:-1]))
    new |= _asked_at(rows, length)
    order = np.lexsort((_chance(keys[row], place, draw, _ORDER), np.cumsum(new)))
    bounds = starts_of(length)
    shuffled = _TOKENS[:2]
    return _with(rows, {name: list_array(lists(rows, name)[0][order], bounds) for name in shuffled})


def _asked_at(rows: pa.Table, length: Int64) -> AnyArray:
    """Return which tokens, of all rows, a query comes right before."""
    context, queries = lists(rows, "query_context")
    asking = np.repeat(np.arange(len(length)), queries)
    before = np.zeros(int(length.sum()) + 1, np.bool_)
    inner = context < length[asking]
    before[(starts_of(length)[asking] + context)[inner]] = True
    return before[:-1]


def _places(length: Int64) -> tuple[Int64, Int64]:
    """Return row and place within the row of each token."""
    row = np.repeat(np.arange(len(length)), length)
    return row, ragged_ranges(np.zeros(len(length), np.int64), length)


def _chance(row: UInt64, place: Int64, draw: int, kind: int) -> Float64:
    """Return numbers from 0 to below 1, one for each place in a row."""
    told = [np.full(len(row), number, np.int64) for number in (draw, kind)]
    drawn: Float64 = (mix(row, place, *told) >> np.uint64(11)) / 2.0**53
    return drawn


def _with(rows: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """Return the rows with some list columns replaced."""
    for name, column in columns.items():
        field = EXAMPLES_SCHEMA.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column.cast(field.type))
    return rows
