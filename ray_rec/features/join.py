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

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int64,
    among,
    list_array,
    lists,
    numbers,
    ragged_ranges,
    starts_of,
    table_of,
)
from ray_rec.features.claims import Claims
from ray_rec.features.config import FeatureConfig
from ray_rec.features.contexts import without_own_outcomes
from ray_rec.features.controls import Controls
from ray_rec.features.records import EventRows
from ray_rec.features.waiting import Waiting

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
    "shown_placement": pa.list_(pa.int16()),
    "shown_popularity": pa.list_(pa.float32()),
    "shown_rates": pa.list_(pa.float32()),
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
        self.exposed, self.acted = Waiting(OPEN_SCHEMA), Waiting(OUTCOMES_SCHEMA)

    @property
    def open(self) -> pa.Table:
        """The exposures that wait (OPEN_SCHEMA)."""
        return self.exposed.rows

    @property
    def outcomes(self) -> pa.Table:
        """The outcomes that wait (OUTCOMES_SCHEMA)."""
        return self.acted.rows

    @property
    def num_open(self) -> int:
        """How many exposures wait to be emitted, thus without erased ones."""
        return int((~numbers(self.open, "erased")).sum())

    def add(self, exposures: pa.Table, outcomes: pa.Table) -> None:
        """Take new exposures (OPEN_SCHEMA) and outcomes (OUTCOMES_SCHEMA)."""
        self.exposed.add(exposures)
        self.acted.add(outcomes)

    def erase(self, controls: Controls) -> int:
        """Erase exposures made while opted out or open when erased; return how many.

        Outcomes of the time opted out go as well.
        """
        if not len(controls):
            return 0
        actor, taken = numbers(self.outcomes, "user"), numbers(self.outcomes, "ts")
        self.acted.remove(controls.opted_out(actor, taken))
        user, ts = numbers(self.open, "user"), numbers(self.open, "ts")
        before = numbers(self.open, "erased")
        out = controls.opted_out(user, ts)
        erased = controls.erased_until(user, numbers(self.open, "closes_ms") - 1) >= ts
        blank = erased & ~before & ~out
        self.exposed.replace(out | blank, _blanked(self.open.filter(pa.array(blank))))
        return int(((out | erased) & ~before).sum())

    def close(self, watermark_ms: int) -> pa.Table:
        """Return the exposures whose window has closed: OPEN_SCHEMA with shown_labels (int32 bits).

        They leave the join, as do the outcomes that they claim and those that no open or later
        exposure can claim.
        """
        closing = numbers(self.open, "closes_ms") <= watermark_ms
        exposure, outcomes = self._settle(closing)
        closed = _labelled(self.open.filter(pa.array(closing)), exposure, outcomes)
        self.exposed.remove(closing)
        over = numbers(self.outcomes, "ts") + self._longest_ms + self._skew_ms
        self.acted.remove(over <= watermark_ms)
        closed = without_own_outcomes(closed, exposure, outcomes)
        return closed.filter(pa.array(~numbers(closed, "erased")))

    def _settle(self, closing: Bool) -> tuple[Int64, pa.Table]:
        """Take out the outcomes that closing exposures claim; return by which of these, and them.

        All exposures of their users are asked, since one that stays open may claim an outcome.
        """
        user, actor = numbers(self.open, "user"), numbers(self.outcomes, "user")
        acted = np.flatnonzero(among(actor, np.unique(user[closing])))
        actors = np.unique(actor[acted])
        near = np.flatnonzero(among(user, actors))
        outcomes = self.outcomes.take(acted)
        if not len(near):
            return np.zeros(0, np.int64), outcomes.slice(0, 0)
        claims = Claims(self.open.take(near), actors, self._windows_ms, self._skew_ms)
        exposure = claims.of(outcomes)
        settled = (exposure >= 0) & closing[near[exposure]]
        taken = np.zeros(len(actor), np.bool_)
        taken[acted[settled]] = True
        self.acted.remove(taken)
        place = np.cumsum(closing) - 1
        return place[near[exposure[settled]]], outcomes.filter(pa.array(settled))


def _labelled(closed: pa.Table, exposure: Int64, outcomes: pa.Table) -> pa.Table:
    """Return exposures with shown_labels; `exposure` is the row that claims each outcome.

    An item that stands twice in an answer is labelled twice.
    """
    item, lengths = lists(closed, "shown_item")
    key = (np.repeat(np.arange(len(lengths)), lengths) << 32) | item
    order = np.argsort(key, kind="stable")
    wanted = (exposure << 32) | numbers(outcomes, "item")
    low = np.searchsorted(key[order], wanted, side="left")
    count = np.searchsorted(key[order], wanted, side="right") - low
    bit = np.left_shift(1, numbers(outcomes, "type").astype(np.int32))
    bits = np.zeros(len(item), np.int32)
    np.bitwise_or.at(bits, order[ragged_ranges(low, count)], np.repeat(bit, count))
    return closed.append_column("shown_labels", list_array(bits, starts_of(lengths)))


def _blanked(exposures: pa.Table) -> pa.Table:
    """Mark exposures as erased, and keep of them what they may claim only."""
    rows = exposures.num_rows
    blank: dict[str, Any] = {name: [[]] * rows for name in _BLANKED} | {"erased": [True] * rows}
    for name, values in blank.items():
        at = exposures.schema.get_field_index(name)
        field = exposures.schema.field(at)
        exposures = exposures.set_column(at, field, pa.array(values, field.type))
    return exposures


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
