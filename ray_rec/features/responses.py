"""What became of what was shown: how often each item was shown, and taken by outcome.

Only exposures whose attribution window has closed count, so a rate never knows an outcome that is
still to come. An item of which little is known is judged by others of its text, these by others of
its category, these by all (empirical Bayes, as in Efron and Morris 1975, with a fixed strength).
"""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64, grown, numbers, table_of
from ray_rec.features.config import GROUPS
from ray_rec.features.part import Marks, Part

STRENGTH = 10.0
"""So many showings of its own weigh as much as what is known of its likes."""
NUM_LEVELS = 3
"""Category, text, item."""
_RATED = [GROUPS.index(name) for name in ("text", "category")]


def num_rates(num_outcomes: int) -> int:
    """Return the numbers F that `rates` gives of an item."""
    return NUM_LEVELS * (1 + num_outcomes)


class Responses(Part):
    """Counts of N items: how often shown, and taken by each of O outcomes."""

    def __init__(self, num_outcomes: int) -> None:
        super().__init__()
        self.num_items = 0
        self._counts = np.zeros((0, 1 + num_outcomes), np.int64)
        self._changed = Marks()

    @property
    def num_bytes(self) -> int:
        """Bytes of all counts."""
        return 8 * self._counts.shape[1] * self.num_items

    @property
    def counts(self) -> Int64:
        """How often each item was shown, and taken by outcome: int64 [N, 1+O]. Do not write."""
        return self._counts[: self.num_items]

    def grow(self, num_items: int) -> None:
        """Make room for the rows 0 … num_items-1, never shown."""
        self._counts = grown(self._counts, num_items, 0)
        self.num_items = max(self.num_items, num_items)

    def add(self, item: AnyArray, bits: AnyArray) -> None:
        """Count shown items with the bits of their outcomes, [n] each, of rows that were grown."""
        np.add.at(self._counts[:, 0], item, 1)
        for outcome in range(self._counts.shape[1] - 1):
            np.add.at(self._counts[:, 1 + outcome], item, (bits >> outcome) & 1)
        self._changed.add(item)

    def _segment(self, whole: bool) -> pa.Table:
        """Counts by item, a column an outcome; items that were never shown are left out."""
        changed = self._changed.take()
        rows = np.flatnonzero(self.counts[:, 0]) if whole else changed
        taken = {f"taken_{n}": self._counts[rows, 1 + n] for n in range(self._counts.shape[1] - 1)}
        return table_of({"item": rows, "shown": self._counts[rows, 0], **taken})

    def _load(self, table: pa.Table) -> None:
        rows = numbers(table, "item")
        self.grow(int(rows.max(initial=-1)) + 1)
        for place, name in enumerate(table.column_names[1:]):
            self._counts[rows, place] = numbers(table, name)
        self._changed.clear()


def rate_codes(groups: Int64) -> Int64:
    """Return the text and the category of each item as codes; a brand has no rates of its own.

    Of keys int64 [N, G] (`catalogue.group_keys`) codes 0, 1, 2, … by column, int64 [N, 2]; key 0
    has code 0.

    >>> rate_codes(np.array([[7, 0, 4], [0, 5, 4], [7, 3, 4]])).tolist()
    [[1, 0], [0, 2], [1, 1]]
    """
    keys = groups[:, _RATED]
    out = np.zeros(keys.shape, np.int64)
    for place, column in enumerate(keys.T):
        known = column != 0
        out[known, place] = np.unique(column[known], return_inverse=True)[1] + 1
    return out


def rates(counts: AnyArray, groups: Int64, rows: AnyArray | slice) -> Float32:
    """Return what the click head is told of the responses to some items, float32 [n, F].

    For category, text and item: by how much the log odds of each outcome's smoothed rate are above
    those of all items, and n/(n + `STRENGTH`) of how often it was shown: neither moves with the
    level of all rates, or with how long anything has been counted.

    Args:
        counts: shown, and taken by outcome, [N, 1+O].
        groups: codes of each item's text and category, int64 [N, 2]; 0: unknown, in no group.
        rows: of the items asked for, [n].
    """
    if not isinstance(rows, slice) and not len(rows):  # as in most windows of a live stream
        return np.zeros((0, num_rates(counts.shape[1] - 1)), np.float32)
    total = counts.sum(axis=0)
    rate = (total[1:] + 1.0) / (total[0] + 2.0)
    level_of_all, columns = np.log(rate / (1 - rate)), list[Float64]()
    wider = [_of_groups(counts, groups[:, place], rows) for place in (1, 0)]
    for level in (*wider, counts[rows]):
        rate = (level[:, 1:] + STRENGTH * rate) / (level[:, :1] + STRENGTH)
        told = level[:, :1] / (level[:, :1] + STRENGTH)
        columns += [np.log(rate / (1 - rate)) - level_of_all, told]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _of_groups(counts: AnyArray, code: Int64, rows: AnyArray | slice) -> Float64:
    """Return the sums of counts over the groups of some items, [n, 1+O]; 0 for no group."""
    sums: Float64 = np.stack(
        [np.bincount(code, column).astype(np.float64) for column in counts.T], axis=1
    )
    sums[:1] = 0.0
    of_items: Float64 = sums[code[rows]]
    return of_items
