"""Replays as people write them: topics, offsets and times in text."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ray_rec.errors import ConfigError, LogError, TopicMissing
from ray_rec.events import DEAD_LETTER, EVENTS
from ray_rec.events.decode import dead_letters, decode
from ray_rec.log import EventLog, Record, create_standard_topics, open_log
from ray_rec.log.archive import Archive
from ray_rec.log.replay_request import ReplayRequest, run_replay


def values(log: EventLog, topic: str) -> list[bytes]:
    latest = log.latest(topic)
    spans = {p: (first, latest[p]) for p, first in log.earliest(topic).items()}
    return [value for table in log.read(topic, spans) for value in table["value"].to_pylist()]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A log with one partition whose events 0..9 lie a second apart, from 1970-01-01T00:00:01."""
    url = f"sqlite:///{tmp_path}/source.db"
    with open_log(url) as log:
        create_standard_topics(log, 1)
        log.append(EVENTS, [Record(b"u", b"%d" % n, 1000 * (n + 1)) for n in range(10)])
    return url


@pytest.mark.parametrize(
    ("offsets", "start", "end", "taken"),
    [
        ((), None, None, range(10)),
        (("events:0:2-5",), None, None, range(2, 5)),
        ((), "1970-01-01T00:00:03", "1970-01-01T00:00:05+00:00", range(2, 4)),
        ((), "4000", None, range(3, 10)),
        (("events:0:0-3",), "2000", "9000", range(1, 3)),
    ],
)
def test_a_stretch_is_copied_to_a_log_that_had_nothing(
    source: str,
    tmp_path: Path,
    offsets: Sequence[str],
    start: str | None,
    end: str | None,
    taken: range,
) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    done = run_replay(
        ReplayRequest(source, target, ["events=again"], offsets, start=start, end=end)
    )
    assert done.records == {"again": len(taken)}
    with open_log(target) as log:
        assert log.topics() == {"again": 1}
        assert values(log, "again") == [b"%d" % n for n in taken]


def test_all_topics_by_default(source: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    assert run_replay(ReplayRequest(source, target)).records == {EVENTS: 10}
    with open_log(target) as log:
        assert set(log.topics()) == {"items", "events", "exposures", "controls"}


def test_an_archive_is_a_source(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with open_log(source) as log:
        Archive(folder).write(log, EVENTS, {0: (4, 8)})
    target = f"sqlite:///{tmp_path}/target.db"
    done = run_replay(ReplayRequest(str(folder), target, [EVENTS]))
    assert done.records == {EVENTS: 4}


def test_dead_letters_go_back(source: str) -> None:
    with open_log(source) as log:
        (raw,) = log.read(EVENTS, {0: (0, 1)})
        log.append(DEAD_LETTER, dead_letters(decode(EVENTS, raw).dead))
    done = run_replay(ReplayRequest(source, source, dead_letter=True))
    assert done.records == {EVENTS: 1}
    with open_log(source) as log:
        assert values(log, EVENTS)[-1] == b"0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topics": ["events"]}, "onto itself"),
        ({"topics": ["=x"]}, "cannot read topic '=x'"),
        ({"topics": ["events=x"], "offsets": ["events:0"]}, "write events:0:100-200"),
        ({"topics": ["events=x"], "offsets": ["events:0:5-2"]}, "write events:0:100-200"),
        ({"topics": ["events=x"], "offsets": ["items:0:1-2"]}, "not among the topics"),
        ({"topics": ["events=x"], "start": "yesterday"}, "start is 'yesterday'"),
        ({"topics": ["events=x"], "end": "-5"}, "end is '-5'"),
        ({"topics": ["events=x"], "speed": -1.0}, "speed is -1"),
    ],
)
def test_what_cannot_be_read_is_named(
    source: str, change: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_replay(ReplayRequest(**({"source": source, "target": source} | change)))


def test_missing_sources_are_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(TopicMissing, match="the source has no topic visits"):
        run_replay(ReplayRequest(source, source, ["visits=x"]))
    with pytest.raises(LogError, match="no archive at"):
        run_replay(ReplayRequest(str(tmp_path / "none"), source, [EVENTS]))
