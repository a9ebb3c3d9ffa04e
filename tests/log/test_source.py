"""The Ray Data source: exactly the range's records, whatever log, split or bad record."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray

from ray_rec.errors import ConfigError
from ray_rec.events import EVENTS, Event, decode_one, encode
from ray_rec.events.schema import DEAD_LETTER, EVENTS_SCHEMA
from ray_rec.log import EventLog, Record, open_log
from ray_rec.log.reading import read_decoded
from ray_rec.log.source import LogSource, read_log


def event(i: int) -> Record:
    user = f"u{i % 13}"
    fields = Event(event_id=f"e{i}", user_id=user, item_id=f"i{i}", event_type="view", ts=i + 1)
    return Record(user.encode(), encode(fields), i + 1)


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    with open_log(request.getfixturevalue(f"{request.param}_url")) as opened:
        opened.create_topics({EVENTS: 3, DEAD_LETTER: 1})
        yield opened


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def fill(log: EventLog) -> dict[int, tuple[int, int]]:
    """Append 1,000 events of which 10 are bad; the broker may hold those of earlier tests."""
    before = log.latest(EVENTS)
    records = [event(i) for i in range(1000)]
    for i in range(0, 1000, 100):
        records[i] = records[i]._replace(value=b"{")
    log.append(EVENTS, records)
    return {p: (before[p], end) for p, end in log.latest(EVENTS).items()}


def test_read_decoded_is_whole(log: EventLog) -> None:
    ranges = fill(log)
    decoded = read_decoded(log.url, {EVENTS: ranges})[EVENTS]
    assert decoded.table.schema == EVENTS_SCHEMA
    assert (decoded.table.num_rows, decoded.dead.num_rows) == (990, 10)
    nothing = read_decoded(log.url, {EVENTS: {0: (5, 5)}})
    assert nothing[EVENTS].table.schema == EVENTS_SCHEMA


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_dataset_holds_the_range_and_reports_the_rest(log: EventLog) -> None:
    ranges = fill(log)
    letters = log.latest(DEAD_LETTER)[0]
    dataset = read_log(log.url, {EVENTS: ranges}, split_records=70, dead_letters=True)
    tables = [pa.table(batch) for batch in _batches(dataset)]
    places = [("partition", "ascending"), ("offset", "ascending")]
    found = pa.concat_tables(tables).cast(EVENTS_SCHEMA).sort_by(places)
    expected = read_decoded(log.url, {EVENTS: ranges})[EVENTS]
    assert found == expected.table.sort_by(places)
    reported = list(log.read(DEAD_LETTER, {0: (letters, log.latest(DEAD_LETTER)[0])}))
    values = [v for table in reported for v in table["value"].to_pylist()]
    assert sorted(decode_one(DEAD_LETTER, v).offset for v in values) == sorted(
        expected.dead["offset"].to_pylist()
    )


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_raw_datasets_name_their_topic(log: EventLog) -> None:
    ranges = fill(log)
    dataset = read_log(log.url, {EVENTS: ranges, DEAD_LETTER: {}}, decode=False)
    table = pa.concat_tables(_batches(dataset))
    assert table.column_names == ["topic", "partition", "offset", "ts", "key", "value"]
    assert table.num_rows == 1000
    assert table["topic"].unique().to_pylist() == [EVENTS]


def _batches(dataset: ray.data.Dataset) -> list[pa.Table]:
    return list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))


def test_large_ranges_are_split_exactly() -> None:
    source = LogSource("sqlite:///x.db", {EVENTS: {1: (5, 25), 0: (3, 3)}}, split_records=8)
    assert source.ranges == [(EVENTS, 1, 5, 13), (EVENTS, 1, 13, 21), (EVENTS, 1, 21, 25)]
    assert len(source.get_read_tasks(1)) == 3


def test_wrong_sources_are_refused() -> None:
    with pytest.raises(ConfigError, match="one topic"):
        LogSource("sqlite:///x.db", {EVENTS: {}, DEAD_LETTER: {}})
    with pytest.raises(ConfigError, match="at least 1"):
        LogSource("sqlite:///x.db", {EVENTS: {}}, split_records=0)
