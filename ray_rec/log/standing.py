"""How a log stands: what is still to be learned of it, and what could not be used."""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from ray_rec.events.schema import DEAD_LETTER
from ray_rec.log.base import EventLog, Offsets

NEWEST_LETTERS = 1_000
UNREADABLE = "unreadable"
_BATCH = 100


def lag(
    log: EventLog, topics: Iterable[str], learned: Mapping[str, Mapping[int, int]]
) -> dict[str, Offsets]:
    """Return the records not yet learned, by topic and partition.

    `learned` holds next offsets; a partition it does not name is still to be read from its first.
    """
    behind = {}
    for topic in topics:
        ends, at = log.latest(topic), learned.get(topic, {})
        if ends.keys() - at.keys():
            at = {**log.earliest(topic), **at}
        behind[topic] = {p: max(0, end - at.get(p, 0)) for p, end in ends.items()}
    return behind


def count_letters(log: EventLog) -> int:
    """Return how many records are in `dead-letter`."""
    first = log.earliest(DEAD_LETTER)
    return sum(end - first.get(p, 0) for p, end in log.latest(DEAD_LETTER).items())


def reasons_of_letters(log: EventLog, newest: int = NEWEST_LETTERS) -> dict[str, int]:
    """Count the reasons of each partition's `newest` dead letters, the most frequent first.

    However many there are, the same few are read. What is no letter counts as `unreadable`.
    """
    first, ends = log.earliest(DEAD_LETTER), log.latest(DEAD_LETTER)
    ranges = {p: (max(first.get(p, 0), end - newest), end) for p, end in ends.items()}
    reasons: Counter[str] = Counter()
    for raw in log.read(DEAD_LETTER, ranges, _BATCH):
        reasons.update(_reason(value) for value in raw["value"].to_pylist())
    return dict(reasons.most_common())


class _Letter(msgspec.Struct):
    reason: str


def _reason(value: bytes | None) -> str:
    try:
        return msgspec.json.decode(value or b"", type=_Letter).reason
    except msgspec.DecodeError:
        return UNREADABLE
