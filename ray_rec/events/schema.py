"""What a record is: the five topics, their JSON objects as structs, and their Arrow columns.

A record is one JSON object; its times are event times in integer milliseconds UTC. Unknown fields
are ignored here and travel on untouched, because logs and replays carry the raw bytes.
"""

from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
import pyarrow as pa
from msgspec import Meta, Raw

EVENTS = "events"
ITEMS = "items"
EXPOSURES = "exposures"
CONTROLS = "controls"
DEAD_LETTER = "dead-letter"

MAX_RECORD_BYTES = 1 << 20
"""A longer value is a dead letter (`too_large`); HTTP refuses it with the same reason."""

MAX_ID_CHARS = 256

MAX_AHEAD_MS = 300_000
"""Behaviour may claim a time at most so far after the log's own time of its record. A claim beyond
would move the watermark, and with it close what others still answer."""

MAX_TS = 10**14
"""Times must lie below this (year 5138): it catches microseconds and nanoseconds."""


class Record(NamedTuple):
    """One record as a log keeps it: raw key and value, and its time in ms."""

    key: bytes | None
    value: bytes | None
    ts: int


Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Millis = Annotated[int, Meta(gt=0, lt=MAX_TS)]
Position = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Price = Annotated[float, Meta(ge=0)]
Propensity = Annotated[float, Meta(gt=0, le=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Context = dict[str, Raw]


class Reason(StrEnum):
    """Each way in which a record can be bad; the names are stable and end up in dead letters."""

    EMPTY_RECORD = "empty_record"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    WRONG_LENGTH = "wrong_length"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_VALUE = "unknown_value"
    KEY_MISMATCH = "key_mismatch"
    AHEAD_OF_LOG = "ahead_of_log"


class Action(StrEnum):
    """What a person asks of the system in `controls`."""

    FORGET = "forget"
    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"


class Event(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """Something a user did to an item; topic `events`, key `user_id`."""

    event_id: Id
    user_id: Id
    item_id: Id
    event_type: Label
    ts: Millis
    session_id: Id | None = None
    request_id: Id | None = None
    position: Position | None = None
    value: float | None = None
    price: Price | None = None
    quantity: float | None = None
    context: Context | None = None


class Item(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """A thing of the catalogue; topic `items` (compacted), key `item_id`; empty value: removed.

    `promotion` is how far the shop puts it forward from `ts` on, by channel: 1 is everywhere.
    """

    item_id: Id
    title: str
    ts: Millis
    category: str | None = None
    brand: str | None = None
    price: Price | None = None
    description: str | None = None
    image_url: str | None = None
    available: bool = True
    promotion: dict[Label, Share] | None = None


class ExposedItem(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """One item of an exposure: where it stood, and how likely the policy was to show it there.

    `placement` names how it was put forward, in the application's own words.
    """

    item_id: Id
    position: Position
    score: float
    propensity: Propensity
    placement: Label | None = None


class Exposure(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """What a user was shown by one answer; topic `exposures`, key `user_id`."""

    request_id: Id
    user_id: Id
    ts: Millis
    model_version: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    policy: Label
    items: list[ExposedItem]
    context: Context | None = None


class Control(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """A wish of a person about their own data; topic `controls`, key `user_id`."""

    user_id: Id
    action: Action
    ts: Millis


class DeadLetter(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A record that could not be used; topic `dead-letter`, key `topic/partition/offset`.

    `key` and `value` are the source record's own (base64 in JSON). `value` is left out for
    `too_large`: the record itself stays where `topic`, `partition` and `offset` say.
    """

    topic: str
    partition: int
    offset: int
    ts: int
    reason: str
    field: str
    key: bytes | None = None
    value: bytes | None = None


AnyRecord = Event | Item | Exposure | Control | DeadLetter

STRUCTS: dict[str, type[AnyRecord]] = {
    EVENTS: Event,
    ITEMS: Item,
    EXPOSURES: Exposure,
    CONTROLS: Control,
    DEAD_LETTER: DeadLetter,
}

KEY_FIELD = {EVENTS: "user_id", ITEMS: "item_id", EXPOSURES: "user_id", CONTROLS: "user_id"}
"""The field whose UTF-8 bytes are a record's key."""


def _needed(name: str, kind: pa.DataType) -> Any:
    return pa.field(name, kind, nullable=False)


_PLACE = [_needed("partition", pa.int32()), _needed("offset", pa.int64())]

LOG_SCHEMA = pa.schema(
    [*_PLACE, _needed("ts", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
)
"""Raw records as read from a log; `ts` is the record's own time in ms."""

EVENTS_SCHEMA = pa.schema(
    [
        *_PLACE,
        _needed("event_id", pa.string()),
        _needed("user_id", pa.string()),
        _needed("item_id", pa.string()),
        _needed("event_type", pa.string()),
        _needed("ts", pa.int64()),
        ("session_id", pa.string()),
        ("request_id", pa.string()),
        ("position", pa.int32()),
        ("value", pa.float64()),
        ("price", pa.float64()),
        ("quantity", pa.float64()),
        ("context", pa.string()),
    ]
)

PROMOTION_TYPE = pa.map_(pa.string(), pa.float32())

ITEMS_SCHEMA = pa.schema(
    [
        *_PLACE,
        _needed("item_id", pa.string()),
        _needed("ts", pa.int64()),
        ("title", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("description", pa.string()),
        ("image_url", pa.string()),
        _needed("available", pa.bool_()),
        _needed("deleted", pa.bool_()),
        ("promotion", PROMOTION_TYPE),
    ]
)

EXPOSED_TYPE = pa.struct(
    [
        ("item_id", pa.string()),
        ("position", pa.int32()),
        ("score", pa.float64()),
        ("propensity", pa.float64()),
        ("placement", pa.string()),
    ]
)

EXPOSURES_SCHEMA = pa.schema(
    [
        *_PLACE,
        _needed("request_id", pa.string()),
        _needed("user_id", pa.string()),
        _needed("ts", pa.int64()),
        _needed("model_version", pa.int64()),
        _needed("policy", pa.string()),
        _needed("items", pa.list_(EXPOSED_TYPE)),
        ("context", pa.string()),
    ]
)

CONTROLS_SCHEMA = pa.schema(
    [
        *_PLACE,
        _needed("user_id", pa.string()),
        _needed("action", pa.string()),
        _needed("ts", pa.int64()),
    ]
)

SCHEMAS = {
    EVENTS: EVENTS_SCHEMA,
    ITEMS: ITEMS_SCHEMA,
    EXPOSURES: EXPOSURES_SCHEMA,
    CONTROLS: CONTROLS_SCHEMA,
}
"""Arrow columns of a decoded topic."""

DEAD_SCHEMA = pa.schema(
    [
        _needed("topic", pa.string()),
        *_PLACE,
        _needed("reason", pa.string()),
        _needed("field", pa.string()),
        ("value", pa.binary()),
        ("key", pa.binary()),
        _needed("ts", pa.int64()),
    ]
)
"""Records of a read that could not be used, as they were on the log."""
