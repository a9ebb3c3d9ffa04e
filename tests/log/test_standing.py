"""What is still to be learned of a log, and why records could not be used."""

import itertools
import os
from collections.abc import Iterator

import pytest

from ray_rec.errors import TopicMissing
from ray_rec.events.parse import encode
from ray_rec.events.schema import DEAD_LETTER, EVENTS, DeadLetter, Record
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.standing import count_letters, lag, reasons_of_letters

_names = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    with open_log(request.getfixturevalue(f"{request.param}_url")) as opened:
        yield opened


@pytest.fixture
def log(sqlite_url: str) -> Iterator[EventLog]:
    with open_log(sqlite_url) as opened:
        create_standard_topics(opened, partitions=2)
        yield opened


def test_lag_is_what_lies_after_the_learned_offsets(any_log: EventLog) -> None:
    topic = f"standing-{os.getpid()}-{next(_names)}"
    any_log.create_topics({topic: 2})
    any_log.append(topic, [Record(f"u{n}".encode(), b"{}", 1) for n in range(20)])
    ends = any_log.latest(topic)
    assert min(ends.values()) > 0
    assert lag(any_log, [topic], {}) == {topic: ends}
    assert lag(any_log, [topic], {topic: ends}) == {topic: {0: 0, 1: 0}}
    learned = {topic: {0: ends[0] - 1}}  # partition 1 was added since
    assert lag(any_log, [topic], learned) == {topic: {0: 1, 1: ends[1]}}


def test_lag_of_a_topic_that_is_missing_is_an_error(log: EventLog) -> None:
    with pytest.raises(TopicMissing, match="nothing"):
        lag(log, [EVENTS, "nothing"], {})


def letters(reason: str, num: int) -> list[Record]:
    letter = DeadLetter(topic="events", partition=0, offset=0, ts=1, reason=reason, field="")
    return [Record(b"events/0/0", encode(letter), 1)] * num


def test_the_newest_letters_are_counted_by_reason(log: EventLog) -> None:
    assert (count_letters(log), reasons_of_letters(log)) == (0, {})
    log.append(DEAD_LETTER, [*letters("too_deep", 30), *letters("not_json", 200)])
    log.append(DEAD_LETTER, letters("key_mismatch", 10))
    assert count_letters(log) == 240
    assert list(reasons_of_letters(log).items()) == [
        ("not_json", 200),
        ("too_deep", 30),
        ("key_mismatch", 10),
    ]
    assert reasons_of_letters(log, newest=15) == {"key_mismatch": 10, "not_json": 5}


def test_what_is_no_letter_is_counted_too(log: EventLog) -> None:
    values = [b"{", b"\xff", b"[]", b"{}", b'{"reason": 3}', None]
    log.append(DEAD_LETTER, [Record(b"k", value, 1) for value in values])
    assert reasons_of_letters(log) == {"unreadable": len(values)}
