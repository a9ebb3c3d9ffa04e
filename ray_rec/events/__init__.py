"""What a record is: schemas, validation, Arrow columns, dead letters."""

from ray_rec.events.decode import Decoded, dead_letters, decode
from ray_rec.events.parse import check_time, decode_one, encode, key_of
from ray_rec.events.schema import (
    CONTROLS,
    DEAD_LETTER,
    EVENTS,
    EXPOSURES,
    ITEMS,
    LOG_SCHEMA,
    SCHEMAS,
    Action,
    Control,
    DeadLetter,
    Event,
    ExposedItem,
    Exposure,
    Item,
    Reason,
    Record,
)

__all__ = [
    "CONTROLS",
    "DEAD_LETTER",
    "EVENTS",
    "EXPOSURES",
    "ITEMS",
    "LOG_SCHEMA",
    "SCHEMAS",
    "Action",
    "Control",
    "DeadLetter",
    "Decoded",
    "Event",
    "ExposedItem",
    "Exposure",
    "Item",
    "Reason",
    "Record",
    "check_time",
    "dead_letters",
    "decode",
    "decode_one",
    "encode",
    "key_of",
]
