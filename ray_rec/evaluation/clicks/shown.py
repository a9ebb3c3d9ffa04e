"""What was shown, with its outcomes.

Outcomes are joined as in learning. What came of an exposure is known when its attribution window
has closed, and not before.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.questions import Interactions, Users, interactions
from ray_rec.events.schema import EVENTS, EXPOSURES
from ray_rec.features.arrays import (
    AnyArray,
    Float32,
    Float64,
    Int64,
    UInt64,
    column,
    lists,
    mix,
    numbers,
    ragged_ranges,
)
from ray_rec.features.examples import EVENTS_CODE, EXPOSURES_CODE, PROMOTED_SCHEMA, row_keys
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window


class Slots(NamedTuple):
    """n slots of answers, each with an item that stood there or could have."""

    user: Int64
    item: Int64  # catalogue row
    ts: Int64  # ms
    position: Int64
    placement: Int64  # code of how it was put forward, -1 where nothing is said


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
    propensity: Float64  # with which the policy put it there, NaN where not logged
    policy: Int64  # code, the place of its name in `policies`
    policies: tuple[str, ...]
    promoted: pa.Table = field(default_factory=PROMOTED_SCHEMA.empty_table)

    def __len__(self) -> int:
        """Return S."""
        return len(self.user)

    @property
    def slots(self) -> Slots:
        """Where each item was shown."""
        return Slots(self.user, self.item, self.ts, self.position, self.placement)


def read_shown(tables: dict[str, pa.Table], window: Window, config: RunConfig) -> Shown:
    """Join a whole stretch of decoded records.

    Raises:
        DataError: nothing was shown.
    """
    users, state = Users(), FeatureState(config.features)
    users.note(EVENTS_CODE, tables[EVENTS])
    users.note(EXPOSURES_CODE, tables[EXPOSURES])
    if not tables[EXPOSURES].num_rows:
        raise DataError(
            "no clicks to test: the stretch holds no exposures; log what is shown, or leave click "
            "models out"
        )
    known_ms = config.features.longest_attribution_ms
    last_ms = max(int(numbers(tables[t], "ts").max(initial=0)) for t in (EVENTS, EXPOSURES))
    closing = Window(0, window.ranges, advance_to_ms=last_ms + known_ms + 1)
    made = state.apply(closing, tables)
    rows = made.examples
    closed = rows.filter(pa.array(numbers(rows, "topic_code") == EXPOSURES_CODE))
    item, sizes = lists(closed, "shown_item")
    ts = np.repeat(lists(closed, "query_ts")[0], sizes)
    order = np.argsort(ts, kind="stable")
    bits = lists(closed, "shown_labels")[0]
    labels = (bits[:, None] >> np.arange(config.features.num_outcomes)) & 1
    exposures = _records(tables[EXPOSURES], closed)
    policy, policies = pd.factorize(column(exposures, "policy").to_numpy(zero_copy_only=False))
    return Shown(
        np.repeat(users.of(closed), sizes)[order],
        item.astype(np.int64)[order],
        ts[order],
        lists(closed, "shown_position")[0].astype(np.int64)[order],
        _placements(exposures)[order],
        labels[order].astype(np.float32),
        known_ms,
        interactions(rows, users),
        pd.factorize(state.catalogue.category)[0].astype(np.int64),
        pd.factorize(_texts(state))[0].astype(np.int64),
        shown_keys(closed)[order],
        lists(closed, "shown_propensity")[0].astype(np.float64)[order],
        np.repeat(policy.astype(np.int64), sizes)[order],
        tuple(policies),
        made.promoted,
    )


def shown_keys(closed: pa.Table) -> UInt64:
    """Return a key of each shown item of closed exposures: a hash of the record and the place."""
    sizes = lists(closed, "shown_item")[1]
    place = ragged_ranges(np.zeros(len(sizes), np.int64), sizes)
    return mix(np.repeat(row_keys(closed), sizes), place)


def _texts(state: FeatureState) -> AnyArray:
    rows = range(len(state.catalogue))
    return np.array([state.catalogue.text(row) for row in rows], object)


def _records(exposures: pa.Table, closed: pa.Table) -> pa.Table:
    """Return the record of each closed exposure."""
    keys = [mix(*(numbers(t, n) for n in ("partition", "offset"))) for t in (exposures, closed)]
    order = np.argsort(keys[0])
    return exposures.take(order[np.searchsorted(keys[0][order], keys[1])])


def _placements(exposures: pa.Table) -> Int64:
    """Return the code of each shown item's placement: labels in ascending order, -1 for none."""
    shown: Any = column(exposures, "items").flatten()
    said = shown.field("placement").to_numpy(zero_copy_only=False)
    codes: Int64 = pd.factorize(said, sort=True)[0].astype(np.int64)
    return codes
