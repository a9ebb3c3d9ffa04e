"""One record at a time: bytes to struct with a named reason when it is bad, and back to bytes.

HTTP uses this directly; `decode` uses it for batches in which something is wrong.
"""

import re
from functools import cache
from typing import Any

import msgspec

from ray_rec.errors import ConfigError, InvalidRecord
from ray_rec.events.schema import (
    KEY_FIELD,
    MAX_AHEAD_MS,
    MAX_RECORD_BYTES,
    STRUCTS,
    AnyRecord,
    DeadLetter,
    Reason,
)

_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_PATH = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`$")
_ENCODER = msgspec.json.Encoder()


@cache
def decoder(topic: str) -> msgspec.json.Decoder[Any]:
    """The compiled decoder of a topic's struct; an unknown topic is a ConfigError."""
    if topic not in STRUCTS:
        known = ", ".join(STRUCTS)
        raise ConfigError(f"topic {topic!r} has no record schema; expected one of {known}")
    return msgspec.json.Decoder(STRUCTS[topic])


def decode_one(topic: str, value: bytes | None) -> AnyRecord:
    """Parse and validate one JSON value of a topic; raise InvalidRecord with reason and field.

    >>> decode_one("controls", b'{"user_id": "u1", "action": "forget", "ts": 1}').action.value
    'forget'
    """
    parse = decoder(topic).decode
    if not value:
        raise InvalidRecord(
            Reason.EMPTY_RECORD, "", f"empty value: `{topic}` expects a JSON object"
        )
    if topic in KEY_FIELD and len(value) > MAX_RECORD_BYTES:
        text = f"{len(value)} bytes, at most {MAX_RECORD_BYTES} are allowed"
        raise InvalidRecord(Reason.TOO_LARGE, "", text)
    try:
        if not value.isascii():
            value.decode()  # skipped fields would otherwise keep bytes that are no UTF-8
        record: AnyRecord = parse(value)
    except UnicodeDecodeError as error:
        raise InvalidRecord(Reason.NOT_UTF8, "", f"not UTF-8: {error}") from None
    except RecursionError:
        raise InvalidRecord(Reason.TOO_DEEP, "", "JSON is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidRecord(Reason.NOT_JSON, "", f"not one JSON object: {error}") from None
    return record


def check_time(ts_ms: int, log_ms: int) -> None:
    """Raise InvalidRecord when behaviour of time `ts_ms` lies too far ahead of the log's time."""
    if ts_ms > log_ms + MAX_AHEAD_MS:
        text = f"field ts: {ts_ms} is {ts_ms - log_ms} ms ahead of now, at most {MAX_AHEAD_MS} are"
        raise InvalidRecord(Reason.AHEAD_OF_LOG, "ts", f"{text} allowed; set the clock right")


def encode(record: AnyRecord) -> bytes:
    """Encode a struct as the JSON bytes that logs carry (absent optional fields left out)."""
    return _ENCODER.encode(record)


def key_of(topic: str, record: AnyRecord) -> bytes:
    """Return a record's key: the UTF-8 bytes of its key field."""
    if isinstance(record, DeadLetter):
        return f"{record.topic}/{record.partition}/{record.offset}".encode()
    key: str = getattr(record, KEY_FIELD[topic])
    return key.encode()


def _invalid(text: str) -> InvalidRecord:
    """Name the reason and the field of a msgspec validation message."""
    found = _PATH.search(text)
    path = found["path"] if found else ""
    message = text[: found.start()] if found else text
    if missing := _MISSING.match(message):
        field = f"{path}.{missing['name']}" if path else missing["name"]
        return InvalidRecord(Reason.MISSING_FIELD, field, f"field {field} is missing")
    if not path:
        return InvalidRecord(Reason.NOT_AN_OBJECT, "", message)
    if "of length" in message:
        reason = Reason.WRONG_LENGTH
    elif message.startswith("Invalid enum value"):
        reason = Reason.UNKNOWN_VALUE
    elif message == "Number out of range" or re.match(r"Expected `\w+` [<>]", message):
        reason = Reason.OUT_OF_RANGE
    else:
        reason = Reason.WRONG_TYPE
    return InvalidRecord(reason, path, f"field {path}: {message}")
