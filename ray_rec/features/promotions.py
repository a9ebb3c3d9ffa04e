"""How far items are promoted by channel, now and as a rule: what their records say.

What sells while it is promoted sells for that; what always is has it in its counts already. So both
are told. As popularity, they are known from the window on that comes after the records.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Float32,
    Float64,
    Int64,
    column,
    grown,
    list_array,
    lists,
    numbers,
    table_of,
)
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.config import DAY_MS
from ray_rec.features.examples import PROMOTED_SCHEMA

RULE_DAYS = 28.0
"""Half-life of the mean that is the rule."""

_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.float32())]))
"""A map's pairs; Arrow cannot flatten a map (pyarrow 26)."""


class Promotions:
    """Shares of N items in C channels, from 0 to 1, and their means that decay with time.

    A share holds from its record's time to the next one's; of one item they come in time order.
    """

    def __init__(self, num_channels: int) -> None:
        self._now: Float64 = np.zeros((0, num_channels))
        self._rule: Float64 = np.zeros((0, num_channels))  # as of its newest record
        self._since_ms: Int64 = np.zeros(0, np.int64)
        self._num_items = 0

    @classmethod
    def of(cls, told: Float32, at_ms: int) -> Self:
        """Return those that tell this, [N, 2·C], at a time."""
        out = cls(told.shape[1] // 2)
        out._now, out._rule = (v.astype(np.float64) for v in np.hsplit(told, 2))
        out._since_ms, out._num_items = np.full(len(told), at_ms), len(told)
        return out

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is kept."""
        each: int = 16 * self._now.shape[1] + 8
        return each * self._num_items

    def grow(self, num_items: int) -> None:
        """Make room for the rows 0 … num_items-1, never promoted."""
        self._now, self._rule = (grown(v, num_items, 0.0) for v in (self._now, self._rule))
        self._since_ms = grown(self._since_ms, num_items, 0)
        self._num_items = max(self._num_items, num_items)

    def promote(self, item: AnyArray, ts: Int64, shares: Float32) -> None:
        """Let item rows [n] be promoted so far from a time on, [n, C], in the order given."""
        while len(item):
            rows, first = np.unique(item, return_index=True)
            self._rule[rows] = self._rule_at(ts[first, None], rows)
            self._now[rows], self._since_ms[rows] = shares[first], ts[first]
            left = np.ones(len(item), np.bool_)
            left[first] = False
            item, ts, shares = item[left], ts[left], shares[left]

    def told(self, at_ms: int, rows: AnyArray | slice) -> Float32:
        """Return how far rows are promoted at a time and as a rule, float32 [n, 2·C]."""
        both = [self._now[rows], self._rule_at(np.int64(at_ms), rows)]
        return np.concatenate(both, axis=1).astype(np.float32)

    def _rule_at(self, at_ms: AnyArray | np.int64, rows: AnyArray | slice) -> Float64:
        passed = np.maximum(at_ms - self._since_ms[rows, None], 0)
        now, left = self._now[rows], np.exp2(passed / (-RULE_DAYS * DAY_MS))
        rule: Float64 = now + (self._rule[rows] - now) * left
        return rule

    def columns(self, rows: AnyArray) -> dict[str, AnyArray]:
        """Return all that is known of rows, by names for a table."""
        out: dict[str, AnyArray] = {"promoted_ms": self._since_ms[rows]}
        for channel in range(self._now.shape[1]):
            out[f"promotion_{channel}"] = self._now[rows, channel]
            out[f"rule_{channel}"] = self._rule[rows, channel]
        return out

    def load(self, rows: AnyArray, table: pa.Table) -> None:
        """Take what `columns` gave of rows that were grown."""
        self._since_ms[rows] = numbers(table, "promoted_ms")
        for channel in range(self._now.shape[1]):
            self._now[rows, channel] = numbers(table, f"promotion_{channel}")
            self._rule[rows, channel] = numbers(table, f"rule_{channel}")


def promotion_rows(items: pa.Table, catalogue: Catalogue, channels: Sequence[str]) -> pa.Table:
    """Return what item records in the order of the log say of some channels, PROMOTED_SCHEMA.

    What a record does not say is 0, so a removed item is promoted no more. The catalogue must know
    them all; without channels there are no rows.
    """
    if not channels:
        return PROMOTED_SCHEMA.empty_table()
    told = column(items, "promotion").cast(_PAIRS)
    names, values = (part.to_numpy(zero_copy_only=False) for part in told.flatten().flatten())
    of = np.repeat(np.arange(len(told)), told.value_lengths().fill_null(0))
    shares = np.zeros((len(told), len(channels)), np.float32)
    for place, name in enumerate(channels):
        said = names == name
        shares[of[said], place] = values[said]
    columns = {
        "item": catalogue.rows(column(items, "item_id")),
        "ts": column(items, "ts"),
        "shares": list_array(shares.ravel(), np.arange(len(told) + 1) * len(channels)),
    }
    return table_of(columns, PROMOTED_SCHEMA)


def columns_of(promoted: pa.Table) -> tuple[AnyArray, Int64, Float32]:
    """Return item [n], ts [n] and shares [n, C] of PROMOTED_SCHEMA rows."""
    flat = lists(promoted, "shares")[0].astype(np.float32)
    shares = flat.reshape(promoted.num_rows, len(flat) // max(1, promoted.num_rows))
    return numbers(promoted, "item"), numbers(promoted, "ts"), shares


def by_time(promoted: pa.Table) -> tuple[AnyArray, Int64, Float32]:
    """Return the same in the order of time."""
    item, ts, shares = columns_of(promoted)
    order = np.argsort(ts, kind="stable")
    return item[order], ts[order], shares[order]
