"""One row of a table to one record: ids as text, times in ms, defaults for what is left out."""

import hashlib
import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from ray_rec.datasets.readers import Row
from ray_rec.errors import InvalidRecord
from ray_rec.events.parse import decode_one, encode
from ray_rec.events.schema import (
    EVENTS,
    EXPOSURES,
    ITEMS,
    Event,
    ExposedItem,
    Exposure,
    Item,
    Reason,
)

_IDS = ("event_id", "user_id", "item_id", "session_id", "request_id")
_EVENT_FIELDS = frozenset(Event.__struct_fields__)
_FLOATS = ("value", "price", "quantity")
_NUMBERS = frozenset((*_FLOATS, "ts", "position", "score", "propensity", "model_version"))
_SHOWN_FIELDS = frozenset(ExposedItem.__struct_fields__)
_ANSWER_FIELDS = frozenset(Exposure.__struct_fields__) - {"items", "context"}
_READ_FIELDS = _EVENT_FIELDS | {"rating"}

T = TypeVar("T", Event, Item, Exposure)


def to_event(row: Row, seen: Counter[bytes]) -> Event:
    """Return the row as an event; InvalidRecord names what is wrong.

    `seen` counts equal rows of one import: rows alike but for their place get ids of their own.

    >>> event = to_event(Row(1, {"user_id": 7, "item_id": "a", "ts": "1970-01-02"}), Counter())
    >>> event.user_id, event.event_type, event.ts
    ('7', 'view', 86400000)
    """
    values = _readable(row)
    extra = {name: value for name, value in values.items() if name not in _READ_FIELDS}
    if "rating" in values:
        values.setdefault("value", values["rating"])
    values.setdefault("event_type", "rating" if "rating" in values else "view")
    context = _object(values, "context")
    if extra or context:
        values["context"] = {**context, **extra}
    values.setdefault("event_id", "?")
    event = _convert(values, Event, EVENTS)
    if event.event_id != "?":
        return event
    return msgspec.structs.replace(event, event_id=_made_id(event, seen))


def to_item(row: Row, default_ts: int) -> Item:
    """Return the row as an item of time `default_ts` (ms) where it has none of its own."""
    values = _readable(row)
    values.setdefault("ts", default_ts)
    values.setdefault("title", "")
    if "promotion" in values:  # a table's structs name all channels in each row
        told = _object(values, "promotion").items()
        values["promotion"] = {
            k: share for k, share in told if share is not None and share == share
        }
    return _convert(values, Item, ITEMS)


def to_exposure(
    row: Row, answers: dict[tuple[str, str], Exposure], seen: Counter[bytes]
) -> Exposure | None:
    """Return the exposure that a shown item begins; None where it joins one of `answers`.

    Rows of one user and request are the items of one answer; a row that names no request is an
    answer of its own, and `seen` counts equal ones. InvalidRecord names what is wrong, or what
    differs within an answer.
    """
    values = {"policy": "imported", "model_version": 0, **_readable(row)}
    answer = answers.get((str(values.get("user_id")), str(values.get("request_id"))))
    place = len(answer.items) + 1 if answer else 1
    item = {"score": 0.0, "position": place} | {
        name: _number(value) if name in _NUMBERS else value
        for name, value in values.items()
        if name in _SHOWN_FIELDS
    }
    answered = {name: value for name, value in values.items() if name in _ANSWER_FIELDS}
    made = _convert({"request_id": "?", **answered, "items": [item]}, Exposure, EXPOSURES)
    if "request_id" not in values:
        made = msgspec.structs.replace(made, request_id=_made_id(made, seen))
    elif answer is not None:
        _same_answer(answer, made)
        answer.items.extend(made.items)
        return None
    answers[made.user_id, made.request_id] = made
    return made


def _same_answer(answer: Exposure, made: Exposure) -> None:
    for name in ("ts", "policy", "model_version"):
        first, other = getattr(answer, name), getattr(made, name)
        if first != other:
            text = f"field {name}: {other!r}, but {first!r} in rows of the same request before"
            raise InvalidRecord(Reason.KEY_MISMATCH, name, text)


def _readable(row: Row) -> dict[str, Any]:
    """Return the row's present values, ids as text and the time in ms."""
    if row.problem:
        raise InvalidRecord(Reason.NOT_AN_OBJECT, "", row.problem)
    values = {name: value for name, value in row.values.items() if value is not None}
    for name in _IDS:
        value = values.get(name)
        if type(value) is int or (type(value) is float and value.is_integer()):
            values[name] = str(int(value))
    if "ts" in values:
        values["ts"] = _millis(values["ts"])
    return values


def _millis(value: Any) -> Any:
    """Return a time as integer ms; what is no time comes back as it is, to be named as wrong."""
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1000)
    return value


def _object(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a column as an object, JSON text read as such."""
    value = values.get(name)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise InvalidRecord(Reason.NOT_JSON, name, f"field {name}: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise InvalidRecord(Reason.WRONG_TYPE, name, f"field {name}: expected an object")
    return value or {}


def _convert(values: dict[str, Any], kind: type[T], topic: str) -> T:
    """Make the struct, numbers in text (CSV) read as numbers; a failure is named as on the log."""
    context = values.pop("context", None)
    try:
        record = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError:
        record = _named(values, kind, topic)
    for name in _FLOATS:
        value = getattr(record, name, None)
        if value is not None and not math.isfinite(value):
            text = f"field {name}: expected a finite number, got {value}"
            raise InvalidRecord(Reason.OUT_OF_RANGE, name, text)
    if context is None or not isinstance(record, Event):
        return record
    raw = {name: msgspec.Raw(msgspec.json.encode(v, enc_hook=str)) for name, v in context.items()}
    return msgspec.structs.replace(record, context=raw)


def _named(values: dict[str, Any], kind: type[T], topic: str) -> T:
    """Raise what the log's own decoder says about the values, once text holds no more numbers."""
    strict = {name: _number(value) if name in _NUMBERS else value for name, value in values.items()}
    record = decode_one(topic, msgspec.json.encode(strict, enc_hook=str))
    if not isinstance(record, kind):
        raise TypeError(f"decoding {topic} gave {type(record).__name__}, not {kind.__name__}")
    return record


def _number(value: Any) -> Any:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _made_id(record: Event | Exposure, seen: Counter[bytes]) -> str:
    """Return an id made of what the record says, and of how many equal ones came before it."""
    content = hashlib.blake2b(encode(record), digest_size=8).digest()
    seen[content] += 1
    if seen[content] == 1:
        return content.hex()
    return f"{content.hex()}-{seen[content]}"
