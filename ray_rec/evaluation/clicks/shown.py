"""What was shown, with its outcomes, and what was known of it strictly before: a feature table.

Outcomes are joined as in learning. What came of an exposure is known when its attribution window
has closed, and not before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.questions import Interactions, Users, interactions
from ray_rec.evaluation.clicks.measures import PRIOR_STRENGTH
from ray_rec.events.schema import EVENTS, EXPOSURES
from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Float32,
    Float64,
    Int64,
    UInt64,
    column,
    lists,
    mix,
    numbers,
    ragged_ranges,
    segment_search,
)
from ray_rec.features.config import DAY_MS
from ray_rec.features.examples import EVENTS_CODE, EXPOSURES_CODE, row_keys
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window

SPANS_DAYS = (28, 91)
NEVER_DAYS = 3_650.0
"""So long ago is what never happened."""

KEYS = ("item", "user", "user-item", "user-category", "category", "text", "user-text")
PLACES = ("placement", "item-placement")
"""What only exposures know; of the others what was taken is counted as well."""

_SHIFT = 32  # two codes in one int64


@dataclass(frozen=True)
class Shown:
    """S shown items in the order of time, with O outcomes; and what all users did meanwhile."""

    user: Int64
    item: Int64  # catalogue row
    ts: Int64  # ms
    position: Int64
    placement: Int64  # code of how it was put forward, -1 where nothing is said
    labels: Float32  # [S, O]
    known_ms: int  # so long after it was shown its outcome is known
    done: Interactions
    category: Int64  # [N], -1 unknown
    text: Int64  # [N], the same for items of the same text
    key: UInt64  # [S] of each, whatever the order

    def __len__(self) -> int:
        """Return S."""
        return len(self.user)


def read_shown(tables: dict[str, pa.Table], window: Window, config: RunConfig) -> Shown:
    """Join a whole stretch of decoded records.

    Raises:
        DataError: nothing was shown.
    """
    users, state = Users(), FeatureState(config.features)
    users.note(EVENTS_CODE, tables[EVENTS])
    users.note(EXPOSURES_CODE, tables[EXPOSURES])
    if not tables[EXPOSURES].num_rows:
        raise DataError("no clicks to test: the stretch holds no exposures; leave click models out")
    known_ms = config.features.longest_attribution_ms
    last_ms = max(int(numbers(tables[t], "ts").max(initial=0)) for t in (EVENTS, EXPOSURES))
    closing = Window(0, window.ranges, advance_to_ms=last_ms + known_ms + 1)
    rows = state.apply(closing, tables).examples
    closed = rows.filter(pa.array(numbers(rows, "topic_code") == EXPOSURES_CODE))
    item, sizes = lists(closed, "shown_item")
    ts = np.repeat(lists(closed, "query_ts")[0], sizes)
    order = np.argsort(ts, kind="stable")
    bits = lists(closed, "shown_labels")[0]
    labels = (bits[:, None] >> np.arange(config.features.num_outcomes)) & 1
    return Shown(
        np.repeat(users.of(closed), sizes)[order],
        item.astype(np.int64)[order],
        ts[order],
        lists(closed, "shown_position")[0].astype(np.int64)[order],
        _placements(tables[EXPOSURES], closed)[order],
        labels[order].astype(np.float32),
        known_ms,
        interactions(rows, users),
        pd.factorize(state.catalogue.category)[0].astype(np.int64),
        pd.factorize(_texts(state))[0].astype(np.int64),
        shown_keys(closed)[order],
    )


def shown_keys(closed: pa.Table) -> UInt64:
    """Return a key of each shown item of closed exposures: a hash of the record and the place."""
    sizes = lists(closed, "shown_item")[1]
    place = ragged_ranges(np.zeros(len(sizes), np.int64), sizes)
    return mix(np.repeat(row_keys(closed), sizes), place)


def _texts(state: FeatureState) -> AnyArray:
    rows = range(len(state.catalogue))
    return np.array([state.catalogue.text(row) for row in rows], object)


def _placements(exposures: pa.Table, closed: pa.Table) -> Int64:
    """Return the code of each shown item's placement: labels in ascending order, -1 for none."""
    keys = [mix(*(numbers(t, n) for n in ("partition", "offset"))) for t in (exposures, closed)]
    order = np.argsort(keys[0])
    rows = exposures.take(order[np.searchsorted(keys[0][order], keys[1])])
    shown: Any = column(rows, "items").flatten()
    said = shown.field("placement").to_numpy(zero_copy_only=False)
    codes: Int64 = pd.factorize(said, sort=True)[0].astype(np.int64)
    return codes


class Table(NamedTuple):
    """Features of shown items; a column a name."""

    names: tuple[str, ...]
    values: Float32  # [S, F]
    times_shown: Int64  # [S] past exposures of the item whose outcome is known

    def only(self, names: Sequence[str]) -> "Table":
        """Return the columns named, all for none; ConfigError for one that is not there."""
        for name in names:
            if name not in self.names:
                near = get_close_matches(name, self.names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"no feature {name!r}; known are {', '.join(self.names)}{hint}")
        kept = [place for place, name in enumerate(self.names) if not names or name in names]
        named = tuple(self.names[place] for place in kept)
        return Table(named, self.values[:, kept], self.times_shown)


def click_table(shown: Shown, outcome: int, learned: Bool) -> Table:
    """Return what was known of each shown item when it was shown.

    For each of `KEYS`: how often it was taken, in all and in `SPANS_DAYS`. For these and `PLACES`:
    how often it was shown with known outcome, and taken then, as a rate drawn to that of the
    `learned` rows [S].

    Args:
        shown: what was shown.
        outcome: which of the O outcomes rates are of.
        learned: rows whose overall rate may be known.
    """
    label = shown.labels[:, outcome]
    overall = (label[learned].sum() + 1) / (learned.sum() + 2)
    columns: dict[str, AnyArray] = {"position": shown.position, "placement": shown.placement}
    times_shown = np.zeros(len(shown), np.int64)
    for key in (*KEYS, *PLACES):
        asked = _key(key, shown, shown.user, shown.item, shown.placement)
        if key in KEYS:
            columns |= _taken(key, shown, asked)
        past, at_ms = _Past(asked, shown.ts, label), shown.ts - shown.known_ms
        times, good = past.count(asked, at_ms), past.sum(asked, at_ms)
        columns[f"{key} shown"] = np.log1p(times)
        rate = (good + PRIOR_STRENGTH * overall) / (times + PRIOR_STRENGTH)
        columns[f"{key} rate"] = np.log(rate / (1 - rate))
        times_shown = times if key == "item" else times_shown
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Table(tuple(columns), values, times_shown)


def _taken(key: str, shown: Shown, asked: Int64) -> dict[str, AnyArray]:
    """Return how often and how long ago what has the key `asked` [S] was taken."""
    done, columns = shown.done, {}
    taken = _Past(_key(key, shown, done.user, done.item, done.item), done.ts)
    columns[f"{key} taken"] = np.log1p(taken.count(asked, shown.ts))
    for days in SPANS_DAYS:
        lately = taken.count(asked, shown.ts, days * DAY_MS)
        columns[f"{key} taken in {days} days"] = np.log1p(lately)
    columns[f"{key} days since"] = np.log1p(taken.days_since(asked, shown.ts))
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
