"""Decoded tables as numpy columns: ids hashed, items as catalogue rows, types as codes.

Rows come in (partition, offset) order whatever the order of the input, so a window gives the same
result however its ranges were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.events.schema import EVENTS, EXPOSURES, SCHEMAS
from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Column,
    Int32,
    Int64,
    UInt64,
    column,
    hash_strings,
    numbers,
)
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.config import OTHER, FeatureConfig
from ray_rec.features.owners import keys_of

_EVENT_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "ts", "request_id")
_EXPOSURE_COLUMNS = ("request_id", "user_id", "ts", "policy", "items")
_PLACE = ("partition", "offset")
PLACEMENTS = 1024
"""Codes of placements."""


@dataclass(frozen=True)
class Rows:
    """What the records of a topic have in common; n each."""

    user_code: Int64  # place of the user in the distinct ids
    user: UInt64  # hash of the user id
    ts: Int64
    partition: AnyArray
    offset: Int64

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: AnyArray) -> Self:
        """Return the rows at places, or those that a mask marks."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class EventRows(Rows):
    """Events; n each."""

    key: UInt64  # what makes two events the same: hash of (user_id, event_id)
    item: Int32  # catalogue row
    type: AnyArray  # int8 code
    request: UInt64  # the key of the exposure that it names: hash of (user_id, request_id)
    named: Bool  # whether there is a request_id


@dataclass(frozen=True)
class ExposureRows(Rows):
    """Exposures; n each."""

    key: UInt64  # what makes two exposures the same: hash of (user_id, request_id)
    num_items: Int64
    policy: Int64  # place in the configuration's attribution_windows_ms
    closes_ms: Int64  # when the longest attribution window ends


@dataclass(frozen=True)
class Records:
    """The behaviour of one window: rows, the distinct user ids of each topic, the shown items."""

    events: EventRows
    event_users: Column
    exposures: ExposureRows
    exposure_users: Column
    shown: dict[str, AnyArray]  # by name, of all exposures' items; item is the catalogue row


_NO_EXPOSURES: tuple[ExposureRows, Column, dict[str, AnyArray]] = (
    ExposureRows(
        user_code=np.zeros(0, np.int64),
        user=np.zeros(0, np.uint64),
        ts=np.zeros(0, np.int64),
        partition=np.zeros(0, np.int32),
        offset=np.zeros(0, np.int64),
        key=np.zeros(0, np.uint64),
        num_items=np.zeros(0, np.int64),
        policy=np.zeros(0, np.int64),
        closes_ms=np.zeros(0, np.int64),
    ),
    pa.array([], pa.string()),
    {
        "item": np.zeros(0, np.int32),
        "position": np.zeros(0, np.int32),
        "propensity": np.zeros(0, np.float32),
        "placement": np.zeros(0, np.int16),
    },
)


def topic_table(
    tables: Mapping[str, pa.Table], topic: str, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """Return a topic's table in (partition, offset) order; a missing one is empty."""
    table = tables.get(topic)
    table = SCHEMAS[topic].empty_table() if table is None else table
    table = table.select([*_PLACE, *columns]) if columns else table
    if table.num_rows < 2:
        return table
    partition, offset = numbers(table, "partition"), numbers(table, "offset")
    before, after = partition[:-1], partition[1:]
    rises = (before < after) | ((before == after) & (offset[:-1] < offset[1:]))
    return table if rises.all() else table.take(np.lexsort((offset, partition)))


def read_records(
    tables: Mapping[str, pa.Table], catalogue: Catalogue, config: FeatureConfig
) -> Records:
    """Return events and exposures as numpy rows; items not yet in the catalogue get rows.

    New items are taken in (ts, topic, partition, offset, place in the record) order.
    """
    events = topic_table(tables, EVENTS, _EVENT_COLUMNS)
    exposures = topic_table(tables, EXPOSURES, _EXPOSURE_COLUMNS)
    event_users = _encode(column(events, "user_id"))
    if not exposures.num_rows:  # a live update must not pay for what is not there
        (item,) = _item_rows(catalogue, [column(events, "item_id")], [_times(events, 0)])
        rows = _event_rows(events, event_users, item, config)
        return Records(rows, event_users[1], *_NO_EXPOSURES)
    items = column(exposures, "items")
    num_items = items.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    shown = dict(zip(items.type.value_type.names, items.flatten().flatten(), strict=True))
    shown_times = {name: np.repeat(v, num_items) for name, v in _times(exposures, 1).items()}
    item, shown_item = _item_rows(
        catalogue,
        [column(events, "item_id"), shown["item_id"]],
        [_times(events, 0), shown_times],
    )
    users = _encode(column(exposures, "user_id"))
    common, request = _common(exposures, users), hash_strings(column(exposures, "request_id"))
    policy = _policy_codes(exposures, config)
    longest_ms = np.array(config.attribution_windows_ms).max(axis=1)
    return Records(
        _event_rows(events, event_users, item, config),
        event_users[1],
        ExposureRows(
            **common,
            key=keys_of(common["user"], request),
            num_items=num_items,
            policy=policy,
            closes_ms=numbers(exposures, "ts") + longest_ms[policy],
        ),
        users[1],
        _shown(shown, shown_item, num_items),
    )


def is_held_out(user: UInt64, share: float) -> Bool:
    """Return which users (by hash) are never learned from: a fixed `share` of all."""
    held_out: Bool = (user >> np.uint64(11)) * 2.0**-53 < share
    return held_out


def _event_rows(
    events: pa.Table, users: tuple[Int64, Column], item: Int32, config: FeatureConfig
) -> EventRows:
    common = _common(events, users)
    kind, kinds = _encode(column(events, "event_type"))
    other = config.type_codes[OTHER]
    names: list[Any] = kinds.to_pylist()
    codes = np.array([config.type_codes.get(name, other) for name in names], np.int8)
    request = column(events, "request_id")
    return EventRows(
        **common,
        key=keys_of(common["user"], hash_strings(column(events, "event_id"))),
        item=item,
        type=codes[kind],
        request=keys_of(common["user"], hash_strings(request)),
        named=request.is_valid().to_numpy(zero_copy_only=False),
    )


def _policy_codes(exposures: pa.Table, config: FeatureConfig) -> Int64:
    code, policies = _encode(column(exposures, "policy"))
    names: list[Any] = policies.to_pylist()
    return np.array([config.policy_codes.get(name, 0) for name in names], np.int64)[code]


def _common(table: pa.Table, users: tuple[Int64, Column]) -> dict[str, Any]:
    code, distinct = users
    return {
        "user_code": code,
        "user": hash_strings(distinct)[code],
        **{name: numbers(table, name) for name in ("ts", *_PLACE)},
    }


def _shown(shown: dict[str, Any], item: Int32, num_items: Int64) -> dict[str, AnyArray]:
    place = np.arange(len(item)) - np.repeat(np.cumsum(num_items) - num_items, num_items)
    position = shown["position"]
    listed = position.is_valid().to_numpy(zero_copy_only=False)
    given = position.fill_null(0).to_numpy(zero_copy_only=False)
    propensity = shown["propensity"].cast(pa.float32(), safe=False).fill_null(float("nan"))
    return {
        "item": item,
        "position": np.where(listed, given, place + 1).astype(np.int32),
        "propensity": propensity.to_numpy(zero_copy_only=False),
        "placement": placement_codes(shown["placement"]),
    }


def placement_codes(placement: Any) -> AnyArray:
    """Return each placement's code, int16 [n]: 0 for none, otherwise 1 … `PLACEMENTS`-1 by a hash.

    What is not known beforehand needs no table that way (Weinberger et al. 2009, feature hashing);
    two placements may share a code.
    """
    code, distinct = _encode(placement.fill_null(""))
    codes = 1 + (hash_strings(distinct) % np.uint64(PLACEMENTS - 1)).astype(np.int16)
    blank = distinct.to_numpy(zero_copy_only=False) == ""
    out: AnyArray = np.where(blank, 0, codes).astype(np.int16)[code]
    return out


def _times(table: pa.Table, topic_code: int) -> dict[str, AnyArray]:
    times = {name: numbers(table, name) for name in ("ts", *_PLACE)}
    return {**times, "topic": np.full(table.num_rows, topic_code)}


def _item_rows(
    catalogue: Catalogue, ids: list[Any], times: list[dict[str, AnyArray]]
) -> list[Int32]:
    """Return the catalogue rows of each column of ids, after giving rows to unknown ones."""
    coded: list[tuple[Int64, Any]] = [_encode(values) for values in ids]
    rows = [catalogue.rows(distinct) for _, distinct in coded]
    unknown = [found[code] < 0 for found, (code, _) in zip(rows, coded, strict=True)]
    if any(mask.any() for mask in unknown):
        new = pa.concat_arrays([v.filter(pa.array(m)) for v, m in zip(ids, unknown, strict=True)])
        keys = [
            np.concatenate([t[name][m] for t, m in zip(times, unknown, strict=True)])
            for name in ("offset", "partition", "topic", "ts")
        ]
        catalogue.rows(pc.unique(new.take(np.lexsort(keys))), add=True)
        for found, (_, distinct) in zip(rows, coded, strict=True):
            missing = found < 0
            found[missing] = catalogue.rows(distinct.filter(pa.array(missing)))
    return [found[code] for found, (code, _) in zip(rows, coded, strict=True)]


def _encode(values: Any) -> tuple[Int64, Column]:
    """Return (codes, distinct values) of a column without nulls."""
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary
