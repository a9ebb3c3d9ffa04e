"""A replay as people write it down, in text: what the command line and the job hand over."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from ray_rec.errors import ConfigError, TopicMissing
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.log.archive import Archive
from ray_rec.log.base import EventLog, Ranges, open_log
from ray_rec.log.replay import Replayed, replay, replay_dead_letters

ALL_TOPICS = (ITEMS, EVENTS, EXPOSURES, CONTROLS)


@dataclass(frozen=True)
class ReplayRequest:
    """What to copy, from where, to where, how fast.

    Attributes:
        source: log URL, or the folder of an archive.
        target: log URL.
        topics: `topic`, or `topic=other` to write it under another name; none means all that
            people and shops write (items, events, exposures, controls).
        offsets: `topic:partition:start-end`; partitions of a named topic that are not named are
            left out.
        start: first record time to take, ISO 8601 (UTC where it names no zone) or ms.
        end: the record time to stop before.
        speed: record time per wall time; 0 does not wait.
        dead_letter: instead of all that, put the target's dead letters back to their topics.
    """

    source: str
    target: str
    topics: Sequence[str] = ()
    offsets: Sequence[str] = ()
    start: str | None = None
    end: str | None = None
    speed: float = 0.0
    dead_letter: bool = False


def run_replay(request: ReplayRequest, stop: threading.Event | None = None) -> Replayed:
    """Do what was asked; topics that the target lacks are made with the source's partitions.

    Raises:
        ConfigError: the request cannot be read, or would copy a topic onto itself.
        LogError: source or target does not answer, or lacks a topic or offsets.
    """
    if request.dead_letter:
        with open_log(request.target) as log:
            return replay_dead_letters(log)
    names = dict(_name(text) for text in request.topics or ALL_TOPICS)
    ranges = _ranges(request.offsets, names)
    start_ms, end_ms = _time_ms("start", request.start), _time_ms("end", request.end)
    if request.source == request.target and (same := [a for a, b in names.items() if a == b]):
        raise ConfigError(
            f"a log's {', '.join(same)} cannot be replayed onto itself; "
            "give another log, or another name as in events=events-again"
        )
    with _source(request.source) as source, open_log(request.target) as target:
        _create_missing(source, target, names)
        return replay(source, target, names, ranges, start_ms, end_ms, request.speed, stop)


@contextmanager
def _source(text: str) -> Iterator[EventLog | Archive]:
    if not text.startswith(("sqlite:", "kafka:")) and "://" not in text:
        yield Archive(text)
        return
    with open_log(text) as log:
        yield log


def _create_missing(source: EventLog | Archive, target: EventLog, names: dict[str, str]) -> None:
    there = source.topics()
    if lacking := sorted(set(names) - set(there)):
        raise TopicMissing(
            f"the source has no topic {', '.join(lacking)}; it has {', '.join(there) or 'none'}"
        )
    target.create_topics({})  # makes a log where there is none yet
    known = target.topics()
    target.create_topics(
        {aim: there[topic] for topic, aim in names.items() if aim not in known},
        compacted=[names[ITEMS]] if ITEMS in names else [],
    )


def _name(text: str) -> tuple[str, str]:
    """Read `topic` or `topic=other`.

    >>> _name("events"), _name("events=copy")
    (('events', 'events'), ('events', 'copy'))
    """
    topic, equals, aim = text.partition("=")
    if not topic or (equals and not aim):
        raise ConfigError(f"cannot read topic {text!r}; write events, or events=other-name")
    return topic, aim or topic


def _ranges(offsets: Sequence[str], names: dict[str, str]) -> Ranges:
    ranges: Ranges = {}
    for text in offsets:
        found = re.fullmatch(r"(?P<topic>.+):(?P<partition>\d+):(?P<start>\d+)-(?P<end>\d+)", text)
        if found is None or int(found["start"]) > int(found["end"]):
            raise ConfigError(f"cannot read offsets {text!r}; write events:0:100-200")
        if found["topic"] not in names:
            raise ConfigError(f"offsets of {found['topic']!r}, which is not among the topics")
        span = int(found["start"]), int(found["end"])
        ranges.setdefault(found["topic"], {})[int(found["partition"])] = span
    return ranges


def _time_ms(name: str, text: str | None) -> int | None:
    """Read ms or ISO 8601.

    >>> _time_ms("start", "1970-01-02"), _time_ms("start", "1970-01-01T00:00:01+00:00")
    (86400000, 1000)
    """
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; write 2017-12-24T18:00 or milliseconds") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
