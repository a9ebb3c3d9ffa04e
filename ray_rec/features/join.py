"""The join of exposures with their outcomes, by event time.

Open exposures and recent outcomes wait side by side; when the watermark has passed an exposure's
attribution window, all that could belong to it has arrived, in whatever order, and it is emitted
once with the labels of all its items. So the result does not depend on how the log was cut.

An outcome belongs to one exposure at most: it leaves the join with the exposure that claims it. An
exposure erased by a wish keeps what it can claim until it closes, so that no other gets it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    "policy": pa.int32(),  # place in the configuration's attribution_windows_ms
    "closes_ms": pa.int64(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "held_out": pa.bool_(),
    "erased": pa.bool_(),  # nothing but its claims is kept, and it is never emitted
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
        "type": pa.int8(),  # place in outcome_types
        "request": pa.uint64(),  # null: the event names no request
    }
)


_BLANKED = [
    name for name in _OPEN if name.startswith(("token_", "shown_")) and name != "shown_item"
]


class Join:
    """Exposures whose attribution window is open, and the outcomes that may belong to them."""

    def __init__(self, config: FeatureConfig) -> None:
        self._longest_ms, self._skew_ms = config.longest_attribution_ms, config.lateness_ms
        self._windows_ms = np.array(config.attribution_windows_ms, np.int64)
        self.open = OPEN_SCHEMA.empty_table()
        self.outcomes = OUTCOMES_SCHEMA.empty_table()

    def add(self, exposures: pa.Table, outcomes: pa.Table) -> None:
        """Take new exposures (OPEN_SCHEMA) and outcomes (OUTCOMES_SCHEMA)."""
        self.open = pa.concat_tables([self.open, exposures])
        self.outcomes = pa.concat_tables([self.outcomes, outcomes])

    def erase(self, controls: Controls) -> int:
        """Erase exposures made while opted out or open when erased; return how many.

        Outcomes of the time opted out go as well.
        """
        if not len(controls):
            return 0
        actor, taken = numbers(self.outcomes, "user"), numbers(self.outcomes, "ts")
        self.outcomes = self.outcomes.filter(pa.array(~controls.opted_out(actor, taken)))
        user, ts = numbers(self.open, "user"), numbers(self.open, "ts")
        before = numbers(self.open, "erased")
        out = controls.opted_out(user, ts)
        erased = controls.erased_until(user, numbers(self.open, "closes_ms") - 1) >= ts
        if (out | (erased & ~before)).any():
            self.open = _blanked(self.open, erased).filter(pa.array(~out))
        return int(((out | erased) & ~before).sum())

    def close(self, watermark_ms: int) -> pa.Table:
        """Return the exposures whose window has closed: OPEN_SCHEMA with shown_labels (int32 bits).

        They leave the join, as do the outcomes that they claim and those that no open or later
        exposure can claim.
        """
        closing = numbers(self.open, "closes_ms") <= watermark_ms
        if closing.any():
            offsets, bits = self._labels(closing)
            closed = self.open.append_column("shown_labels", list_array(bits, offsets))
            closed = closed.filter(pa.array(closing & ~numbers(self.open, "erased")))
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
        """Return list offsets [E+1] and label bits by slot; claimed outcomes leave the join."""
        lengths = lists(self.open, "shown_item")[1]
        starts = starts_of(lengths)
        bits = np.zeros(starts[-1], np.int32)
        user, actor = numbers(self.open, "user"), numbers(self.outcomes, "user")
        acted = np.flatnonzero(among(actor, np.unique(user[closing])))
        actors = np.unique(actor[acted])
        near = np.flatnonzero(among(user, actors))
        if len(near):
            slots = _Slots(self.open.take(near), starts[near], actors)
            outcomes = self.outcomes.take(acted)
            exposure = slots.claims(outcomes, self._windows_ms, self._skew_ms)
            settled = (exposure >= 0) & closing[near[exposure]]
            np.bitwise_or.at(
                bits, *slots.labels(exposure[settled], outcomes.filter(pa.array(settled)))
            )
            left = np.ones(len(actor), np.bool_)
            left[acted[settled]] = False
            self.outcomes = self.outcomes.filter(pa.array(left))
        return starts, bits


class _Slots:
    """The shown items of some exposures, one slot each, sorted for look-ups."""

    def __init__(self, exposures: pa.Table, starts: Int64, actors: UInt64) -> None:
        self._actors = actors
        self._of = {
            name: numbers(exposures, name)
            for name in ("request", "user", "ts", "policy", "partition", "offset")
        }
        item, lengths = lists(exposures, "shown_item")
        self._exposure = np.repeat(np.arange(len(starts)), lengths)
        self._item = item.astype(np.int64)
        self._slot = ragged_ranges(starts, lengths)
        user = np.searchsorted(actors, self._of["user"])[self._exposure]
        self._pair = (user.astype(np.int64) << 32) | self._item

    def claims(self, outcomes: pa.Table, windows_ms: Int64, skew_ms: int) -> Int64:
        """Return the exposure that claims each outcome, or -1; `windows_ms` is [policies, O]."""
        named = column(outcomes, "request").is_valid().to_numpy(zero_copy_only=False)
        exposure = np.empty(len(named), np.int64)
        exposure[named] = self._named(outcomes.filter(pa.array(named)), windows_ms, skew_ms)
        exposure[~named] = self._latest(outcomes.filter(pa.array(~named)), windows_ms)
        return exposure

    def labels(self, exposure: Int64, outcomes: pa.Table) -> tuple[Int64, AnyArray]:
        """Return (slot, bit) of each outcome; an item that stands twice in an answer has two slots."""
        key = (self._exposure << 32) | self._item
        order = np.argsort(key, kind="stable")
        wanted = (exposure << 32) | numbers(outcomes, "item")
        low = np.searchsorted(key[order], wanted, side="left")
        count = np.searchsorted(key[order], wanted, side="right") - low
        bit = np.left_shift(1, numbers(outcomes, "type").astype(np.int32))
        return self._slot[order[ragged_ranges(low, count)]], np.repeat(bit, count)

    def _named(self, outcomes: pa.Table, windows_ms: Int64, skew_ms: int) -> Int64:
        """Return the exposure of the same user that each outcome names in time, or -1."""
        wanted, ts, made = numbers(outcomes, "request"), numbers(outcomes, "ts"), self._of["ts"]
        order = np.argsort(self._of["request"], kind="stable")
        place = np.searchsorted(self._of["request"][order], wanted)
        found = order[np.minimum(place, len(order) - 1)]
        same = self._of["user"][found] == numbers(outcomes, "user")
        same &= self._of["request"][found] == wanted
        ends = made[found] + windows_ms[self._of["policy"][found], numbers(outcomes, "type")]
        return np.where(same & (made[found] - skew_ms <= ts) & (ts < ends), found, -1)

    def _latest(self, outcomes: pa.Table, windows_ms: Int64) -> Int64:
        """Return the latest exposure of the item to the user that still waits for each, or -1.

        Windows of one policy end in the order they begin, so its latest exposure is enough.
        """
        shown, none = len(self._pair), np.zeros(outcomes.num_rows, np.int64)
        user = np.searchsorted(self._actors, numbers(outcomes, "user")).astype(np.int64)
        pair = np.append(self._pair, (user << 32) | numbers(outcomes, "item"))
        kind = np.append(np.zeros(shown, np.int8), numbers(outcomes, "type"))
        exposure = np.append(self._exposure, none - 1)
        made = {name: np.append(v[self._exposure], none) for name, v in self._of.items()}
        ts = made["ts"]
        ts[shown:] = numbers(outcomes, "ts")
        is_outcome = np.arange(len(pair)) >= shown
        order = np.lexsort((made["offset"], made["partition"], is_outcome, ts, pair))
        best = np.full(len(order), -1)
        for policy in np.unique(self._of["policy"]).tolist():
            such = (~is_outcome & (made["policy"] == policy))[order]
            last = np.maximum.accumulate(np.where(such, np.arange(len(order)), -1))
            at = order[last]
            waits = ts[order] < ts[at] + windows_ms[policy, kind[order]]
            best = np.maximum(best, np.where((pair[at] == pair[order]) & waits, last, -1))
        out = np.empty(len(order), np.int64)
        out[order] = np.where(best >= 0, exposure[order[best]], -1)
        return out[shown:]


def _blanked(exposures: pa.Table, erased: Bool) -> pa.Table:
    """Mark rows as erased, and keep of these what they may claim only."""
    for name in _BLANKED:
        at = exposures.schema.get_field_index(name)
        field = exposures.schema.field(at)
        values = pc.if_else(pa.array(erased), pa.scalar([], field.type), column(exposures, name))
        exposures = exposures.set_column(at, field, values)
    at = exposures.schema.get_field_index("erased")
    marked = erased | numbers(exposures, "erased")
    return exposures.set_column(at, exposures.schema.field(at), pa.array(marked))


def outcomes_table(events: EventRows, kind: AnyArray) -> pa.Table:
    """Return events as OUTCOMES_SCHEMA; `kind` is each one's place in outcome_types."""
    columns = {
        "user": events.user,
        "item": events.item,
        "ts": events.ts,
        "type": kind,
        "request": pa.array(events.request, mask=~events.named),
    }
    return table_of(columns, OUTCOMES_SCHEMA)
