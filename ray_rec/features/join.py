"""The join of exposures with their outcomes, by event time.

Open exposures and recent outcomes wait side by side; when the watermark has passed an exposure's
attribution window, all that could belong to it has arrived, in whatever order, and it is emitted
once with the labels of all its items. So the result does not depend on how the log was cut.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int32,
    Int64,
    UInt64,
    among,
    column,
    list_array,
    lists,
    numbers,
    ragged_ranges,
    starts_of,
    table_of,
)
from ray_rec.features.config import FeatureConfig
from ray_rec.features.controls import Controls
from ray_rec.features.records import EventRows

_OPEN: dict[str, Any] = {
    "request": pa.uint64(),
    "user": pa.uint64(),
    "ts": pa.int64(),
    "closes_ms": pa.int64(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "held_out": pa.bool_(),
    "token_item": pa.list_(pa.int32()),
    "token_type": pa.list_(pa.int8()),
    "token_ts": pa.list_(pa.int64()),
    "shown_item": pa.list_(pa.int32()),
    "shown_position": pa.list_(pa.int32()),
    "shown_propensity": pa.list_(pa.float32()),
    "shown_popularity": pa.list_(pa.float32()),
}
OPEN_SCHEMA = pa.schema(_OPEN)
"""Exposures that wait, with the context they were made in; users and requests by their hash."""

OUTCOMES_SCHEMA = pa.schema(
    {
        "user": pa.uint64(),
        "item": pa.int32(),
        "ts": pa.int64(),
        "bit": pa.int32(),  # 1 << the place in outcome_types
        "request": pa.uint64(),  # null: the event names no request
    }
)


class Join:
    """Exposures whose attribution window is open, and the outcomes that may belong to them."""

    def __init__(self, config: FeatureConfig) -> None:
        self._longest_ms, self._skew_ms = config.longest_attribution_ms, config.lateness_ms
        self.open = OPEN_SCHEMA.empty_table()
        self.outcomes = OUTCOMES_SCHEMA.empty_table()

    def add(self, exposures: pa.Table, outcomes: pa.Table) -> None:
        """Take new exposures (OPEN_SCHEMA) and outcomes (OUTCOMES_SCHEMA)."""
        self.open = pa.concat_tables([self.open, exposures])
        self.outcomes = pa.concat_tables([self.outcomes, outcomes])

    def erase(self, controls: Controls) -> int:
        """Drop exposures made while opted out or open when erased; return how many.

        Outcomes of the time opted out go as well.
        """
        if not len(controls):
            return 0
        actor, taken = numbers(self.outcomes, "user"), numbers(self.outcomes, "ts")
        self.outcomes = self.outcomes.filter(pa.array(~controls.opted_out(actor, taken)))
        user, ts = numbers(self.open, "user"), numbers(self.open, "ts")
        erased = controls.erases(user, ts, numbers(self.open, "closes_ms") - 1)
        self.open = self.open.filter(pa.array(~erased))
        return int(erased.sum())

    def close(self, watermark_ms: int) -> pa.Table:
        """Return the exposures whose window has closed: OPEN_SCHEMA with shown_labels (int32 bits).

        They leave the join, as do outcomes that no open or later exposure can claim.
        """
        closing = numbers(self.open, "closes_ms") <= watermark_ms
        if closing.any():
            offsets, bits = self._labels(closing)
            closed = self.open.append_column("shown_labels", list_array(bits, offsets))
            closed = closed.filter(pa.array(closing))
            self.open = self.open.filter(pa.array(~closing)).combine_chunks()
        else:
            labels = pa.field("shown_labels", pa.list_(pa.int32()))
            closed = OPEN_SCHEMA.append(labels).empty_table()
        self._prune(watermark_ms)
        return closed

    def _prune(self, watermark_ms: int) -> None:
        void = numbers(self.outcomes, "ts") + self._longest_ms + self._skew_ms <= watermark_ms
        if void.any():
            self.outcomes = self.outcomes.filter(pa.array(~void)).combine_chunks()

    def _labels(self, closing: Bool) -> tuple[Int64, Int32]:
        """Return list offsets [E+1] and label bits by slot, complete for closing exposures only."""
        lengths = lists(self.open, "shown_item")[1]
        starts = starts_of(lengths)
        bits = np.zeros(starts[-1], np.int32)
        user, actor = numbers(self.open, "user"), numbers(self.outcomes, "user")
        acted = among(actor, np.unique(user[closing]))
        actors = np.unique(actor[acted])
        near = np.flatnonzero(among(user, actors))
        if len(near):
            slots = _Slots(self.open.take(near), starts[near], actors)
            outcomes = self.outcomes.filter(pa.array(acted))
            slot, bit = slots.match(outcomes, self._skew_ms)
            np.bitwise_or.at(bits, slot, bit)
        return starts, bits


class _Slots:
    """The shown items of some exposures, one slot each, sorted for look-ups."""

    def __init__(self, exposures: pa.Table, starts: Int64, actors: UInt64) -> None:
        self._actors = actors
        self._request = numbers(exposures, "request")
        self._exposure_user = numbers(exposures, "user")
        self._exposure_ts = numbers(exposures, "ts")
        self._closes_ms = numbers(exposures, "closes_ms")
        item, lengths = lists(exposures, "shown_item")
        self._exposure = np.repeat(np.arange(len(starts)), lengths)
        self._item = item.astype(np.int64)
        self._slot = ragged_ranges(starts, lengths)
        self._ts = self._exposure_ts[self._exposure]
        user = np.searchsorted(actors, self._exposure_user)[self._exposure]
        self._pair = (user.astype(np.int64) << 32) | self._item

    def match(self, outcomes: pa.Table, skew_ms: int) -> tuple[Int64, AnyArray]:
        """Return (slot, bit) of each outcome that an exposure can claim."""
        named = column(outcomes, "request").is_valid().to_numpy(zero_copy_only=False)
        ts, bit = numbers(outcomes, "ts"), numbers(outcomes, "bit")
        exposure = np.full(len(ts), -1, np.int64)
        exposure[named] = self._named(outcomes.filter(pa.array(named)))
        exposure[~named] = self._latest(outcomes.filter(pa.array(~named)))
        earliest = self._exposure_ts[exposure] - np.where(named, skew_ms, 0)
        valid = (exposure >= 0) & (earliest <= ts) & (ts < self._closes_ms[exposure])
        return self._slots_of(exposure[valid], numbers(outcomes, "item")[valid], bit[valid])

    def _named(self, outcomes: pa.Table) -> Int64:
        """Return the exposure of the same user that each outcome names, or -1."""
        wanted = numbers(outcomes, "request")
        order = np.argsort(self._request, kind="stable")
        place = np.searchsorted(self._request[order], wanted)
        found = order[np.minimum(place, len(order) - 1)]
        same = self._exposure_user[found] == numbers(outcomes, "user")
        return np.where((self._request[found] == wanted) & same, found, -1)

    def _latest(self, outcomes: pa.Table) -> Int64:
        """Return the latest exposure of the item to the user up to each outcome, or -1."""
        user = np.searchsorted(self._actors, numbers(outcomes, "user")).astype(np.int64)
        pair = np.concatenate([self._pair, (user << 32) | numbers(outcomes, "item")])
        ts = np.concatenate([self._ts, numbers(outcomes, "ts")])
        shown = len(self._pair)
        order = np.lexsort((np.arange(len(pair)) >= shown, ts, pair))
        last = np.maximum.accumulate(np.where(order < shown, np.arange(len(order)), -1))
        at = order[last]
        mine = (last >= 0) & (pair[at] == pair[order])
        exposure = np.append(self._exposure, np.full(len(pair) - shown, -1))
        out = np.empty(len(pair), np.int64)
        out[order] = np.where(mine, exposure[at], -1)
        return out[shown:]

    def _slots_of(self, exposure: Int64, item: AnyArray, bit: AnyArray) -> tuple[Int64, AnyArray]:
        """Return every slot of the item in the exposure (an answer may list an item twice)."""
        key = (self._exposure << 32) | self._item
        order = np.argsort(key, kind="stable")
        wanted = (exposure << 32) | item
        low = np.searchsorted(key[order], wanted, side="left")
        count = np.searchsorted(key[order], wanted, side="right") - low
        return self._slot[order[ragged_ranges(low, count)]], np.repeat(bit, count)


def outcomes_table(events: EventRows, bit: AnyArray) -> pa.Table:
    """Return events as OUTCOMES_SCHEMA."""
    columns = {
        "user": events.user,
        "item": events.item,
        "ts": events.ts,
        "bit": bit,
        "request": pa.array(events.request, mask=~events.named),
    }
    return table_of(columns, OUTCOMES_SCHEMA)
