"""What was known of shown items strictly before they were shown: a feature table.

Of items that were not shown, but could have been, the same is known.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ray_rec.errors import ConfigError, meant
from ray_rec.evaluation.clicks.measures import PRIOR_STRENGTH
from ray_rec.evaluation.clicks.shown import Shown, Slots
from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Float32,
    Float64,
    Int64,
    first_of_groups,
    segment_search,
)
from ray_rec.features.config import DAY_MS
from ray_rec.features.promotions import Promotions, by_time

SPANS_DAYS = (28, 91)
NEVER_DAYS = 3_650.0
"""So long ago is what never happened."""

KEYS = ("item", "user", "user-item", "user-category", "category", "text", "user-text")
PLACES = ("placement", "item-placement")
"""What only exposures know; of the others what was taken is counted as well."""

_SHIFT = 32  # two codes in one int64


class Table(NamedTuple):
    """Features of n items; a column a name."""

    names: tuple[str, ...]
    values: Float32  # [n, F]
    times_shown: Int64  # [n] past exposures of the item whose outcome is known

    def only(self, names: Sequence[str]) -> "Table":
        """Return the columns named, all for none; ConfigError for one that is not there."""
        for name in names:
            if name not in self.names:
                hint = meant(name, self.names)
                raise ConfigError(f"no feature {name!r}; known are {', '.join(self.names)}{hint}")
        kept = [place for place, name in enumerate(self.names) if not names or name in names]
        named = tuple(self.names[place] for place in kept)
        return Table(named, self.values[:, kept], self.times_shown)


def click_table(shown: Shown, outcome: int, learned: Bool, slots: Slots | None = None) -> Table:
    """Return what was known of each item when it was shown, or would have been.

    For each of `KEYS`: how often it was taken, in all and in `SPANS_DAYS`. For these and `PLACES`:
    how often it was shown with known outcome, and taken then, as a rate drawn to that of the
    `learned` rows [S]. How far it was promoted, where that is told.

    Args:
        shown: what was shown.
        outcome: which of the O outcomes rates are of.
        learned: rows whose overall rate may be known.
        slots: what is asked about; all that was shown where not given.
    """
    asked, label = slots or shown.slots, shown.labels[:, outcome]
    overall = (label[learned].sum() + 1) / (learned.sum() + 2)
    columns: dict[str, AnyArray] = {"position": asked.position, "placement": asked.placement}
    columns |= {f"promotion {place}": told for place, told in enumerate(_promoted(shown, asked).T)}
    times_shown = np.zeros(len(asked.user), np.int64)
    for name in (*KEYS, *PLACES):
        key = _key(name, shown, asked.user, asked.item, asked.placement)
        if name in KEYS:
            columns |= _taken(name, shown, key, asked.ts)
        past = _Past(_key(name, shown, shown.user, shown.item, shown.placement), shown.ts, label)
        at_ms = asked.ts - shown.known_ms
        times, good = past.count(key, at_ms), past.sum(key, at_ms)
        columns[f"{name} shown"] = np.log1p(times)
        rate = (good + PRIOR_STRENGTH * overall) / (times + PRIOR_STRENGTH)
        columns[f"{name} rate"] = np.log(rate / (1 - rate))
        times_shown = times if name == "item" else times_shown
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Table(tuple(columns), values, times_shown)


def _promoted(shown: Shown, asked: Slots) -> Float32:
    """Return how far each item was promoted before it was shown, now and as a rule, [n, 2·C]."""
    item, ts, shares = by_time(shown.promoted)
    promotions, out = Promotions(shares.shape[1]), np.zeros((len(asked.ts), 2 * shares.shape[1]))
    promotions.grow(len(shown.text))
    order = np.argsort(asked.ts, kind="stable") if shares.size else np.zeros(0, np.int64)
    first = first_of_groups(asked.ts[order])
    begin = 0
    for low, high in pairwise([*first.tolist(), len(order)]):
        at_ms = int(asked.ts[order[low]])
        end = int(np.searchsorted(ts, at_ms))
        promotions.promote(item[begin:end], ts[begin:end], shares[begin:end])
        out[order[low:high]] = promotions.told(at_ms, asked.item[order[low:high]])
        begin = end
    return out.astype(np.float32)


def _taken(name: str, shown: Shown, key: Int64, ts: Int64) -> dict[str, AnyArray]:
    """Return how often and how long before `ts` [n] what has the key [n] was taken."""
    done, columns = shown.done, {}
    taken = _Past(_key(name, shown, done.user, done.item, done.item), done.ts)
    columns[f"{name} taken"] = np.log1p(taken.count(key, ts))
    for days in SPANS_DAYS:
        columns[f"{name} taken in {days} days"] = np.log1p(taken.count(key, ts, days * DAY_MS))
    columns[f"{name} days since"] = np.log1p(taken.days_since(key, ts))
    return columns


class _Past:
    """Happenings by key and time, to be counted strictly before a time."""

    def __init__(self, key: Int64, ts: Int64, weight: AnyArray | None = None) -> None:
        order = np.lexsort((ts, key))
        self._key, self._ts = key[order], ts[order]
        weights = np.ones(len(key)) if weight is None else weight[order].astype(np.float64)
        self._total = np.append(0.0, np.cumsum(weights))

    def count(self, key: Int64, at_ms: Int64, span_ms: int | None = None) -> Int64:
        """Return how many there were before, of the last `span_ms` alone if that is given."""
        low, place = self._span(key, at_ms)
        if span_ms is None:
            return place - low
        return place - self._span(key, at_ms - span_ms)[1]

    def sum(self, key: Int64, at_ms: Int64) -> Float64:
        """Return the sum of their weights."""
        low, place = self._span(key, at_ms)
        total: Float64 = self._total[place] - self._total[low]
        return total

    def days_since(self, key: Int64, at_ms: Int64) -> Float64:
        """Return days since the last one."""
        low, place = self._span(key, at_ms)
        if not len(self._ts):
            return np.full(len(key), NEVER_DAYS)
        days = (at_ms - self._ts[np.maximum(place - 1, 0)]) / DAY_MS
        since: Float64 = np.where(place > low, days, NEVER_DAYS)
        return since

    def _span(self, key: Int64, at_ms: Int64) -> tuple[Int64, Int64]:
        low = np.searchsorted(self._key, key, "left")
        high = np.searchsorted(self._key, key, "right")
        return low, segment_search(self._ts, low, high, at_ms)


def _key(name: str, shown: Shown, user: Int64, item: Int64, placement: Int64) -> Int64:
    """Return what a feature is kept by, an int64 for each row."""
    kind, text = shown.category[item] + 1, shown.text[item]
    return {
        "item": item,
        "user": user,
        "category": kind,
        "user-item": (user << _SHIFT) | item,
        "user-category": (user << _SHIFT) | kind,
        "text": text,
        "user-text": (user << _SHIFT) | text,
        "placement": placement,
        "item-placement": (item << _SHIFT) | (placement + 1),
    }[name]
