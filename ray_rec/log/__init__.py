"""Where records live: one interface over SQLite and Kafka, and the windows cut from them."""

from ray_rec.events.schema import LOG_SCHEMA, Record
from ray_rec.log.base import (
    STANDARD_TOPICS,
    EventLog,
    Offsets,
    Ranges,
    check_topics,
    create_standard_topics,
    open_log,
)
from ray_rec.log.cut import cut
from ray_rec.log.window import Window

__all__ = [
    "LOG_SCHEMA",
    "STANDARD_TOPICS",
    "EventLog",
    "Offsets",
    "Ranges",
    "Record",
    "Window",
    "check_topics",
    "create_standard_topics",
    "cut",
    "open_log",
]
