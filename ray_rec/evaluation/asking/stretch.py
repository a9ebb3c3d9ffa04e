"""From where to where on the log a backtest goes: offsets or a time."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from ray_rec.errors import ConfigError
from ray_rec.events.schema import ITEMS
from ray_rec.log.base import EventLog, Offsets


def starts(log: EventLog, topics: Sequence[str], place: str | None) -> dict[str, Offsets]:
    """Return where to begin; items always from their beginning, because they are the catalogue."""
    first = {topic: log.earliest(topic) for topic in topics}
    if place is None:
        return first
    return {**first, **_offsets(log, [t for t in topics if t != ITEMS], place)}


def ends(log: EventLog, topics: Sequence[str], place: str | None) -> dict[str, Offsets]:
    """Return where to end, at most the log's present end."""
    last = {topic: log.latest(topic) for topic in topics}
    if place is None:
        return last
    asked = _offsets(log, topics, place)
    return {t: {p: min(o, asked.get(t, {}).get(p, o)) for p, o in last[t].items()} for t in topics}


def _offsets(log: EventLog, topics: Sequence[str], place: str) -> dict[str, Offsets]:
    """Read JSON offsets by topic and partition, or a time in ms or ISO 8601 (UTC)."""
    if place.lstrip().startswith("{"):
        return _written(place)
    ms = moment_ms(place)
    return {topic: log.offsets_at(topic, ms) for topic in topics}


def _written(place: str) -> dict[str, Offsets]:
    try:
        plain = json.loads(place)
        return {t: {int(p): int(o) for p, o in by.items()} for t, by in plain.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f'{place!r} is no stretch of offsets ({error}); write {{"events": {{"0": 1200}}}}'
        ) from error


def moment_ms(place: str) -> int:
    """Read a time, in ms or ISO 8601 (UTC where it names no zone).

    >>> moment_ms("1970-01-01T00:01"), moment_ms("60000")
    (60000, 60000)
    """
    if place.isdigit():
        return int(place)
    try:
        moment = datetime.fromisoformat(place)
    except ValueError as error:
        raise ConfigError(
            f"{place!r} is no place on the log; write a time (2024-05-01T12:00, ms since 1970) "
            'or offsets ({"events": {"0": 1200}})'
        ) from error
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
