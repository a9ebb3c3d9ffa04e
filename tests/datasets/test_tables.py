"""Importing tables: every format, every real set at hand, and every way a row can be bad."""

import gzip
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ray_rec.datasets.tables import import_tables
from ray_rec.errors import DataError
from ray_rec.events.decode import decode
from ray_rec.events.schema import DEAD_LETTER, EVENTS, EXPOSURES, ITEMS
from ray_rec.log.base import EventLog, create_standard_topics, open_log

HEAD_ROWS = 2_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(f"sqlite:///{tmp_path / 'log.db'}") as log:
        create_standard_topics(log, 2)
        yield log


def raw(log: EventLog, topic: str) -> list[pa.Table]:
    return [
        table
        for partition, end in log.latest(topic).items()
        for table in log.read(topic, {partition: (0, end)})
    ]


def read(log: EventLog, topic: str) -> list[dict]:
    rows = []
    for table in raw(log, topic):
        decoded = decode(topic, table)
        assert decoded.dead.num_rows == 0
        rows += decoded.table.to_pylist()
    return sorted(rows, key=lambda row: row["ts"])


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("amazon14_beauty", {"review"}),
        ("online_retail_ii", {"purchase", "return"}),
        ("rees46_oct2019_sample", {"view", "cart", "purchase"}),
        ("deskdrop_events", {"view", "follow", "like", "bookmark", "comment_created"}),
        ("movielens_latest_small", {"rating"}),
    ],
)
def test_real_sets_import_as_they_are(
    shared_data: Path, tmp_path: Path, log: EventLog, name: str, types: set[str]
) -> None:
    head = tmp_path / "events.parquet"
    table = pq.read_table(shared_data / name / "events.parquet").slice(0, HEAD_ROWS)
    pq.write_table(table, head)
    items = shared_data / name / "items.parquet"
    report = import_tables(log, head, items if items.exists() else None)
    assert report.counts[EVENTS] == HEAD_ROWS
    assert report.skipped == 0
    events = read(log, EVENTS)
    assert [event["ts"] for event in events] == sorted(table["ts"].to_pylist())
    assert len({event["event_id"] for event in events}) == HEAD_ROWS
    assert {event["event_type"] for event in events} <= types
    if items.exists():
        assert len(read(log, ITEMS)) == pq.read_metadata(items).num_rows


def test_ratings_become_values(shared_data: Path, log: EventLog) -> None:
    folder = shared_data / "movielens_latest_small"
    import_tables(log, folder / "events.parquet")
    values = {event["value"] for event in read(log, EVENTS)}
    assert values == {0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0}


def test_a_set_without_users_says_which_column_is_missing(
    shared_data: Path, tmp_path: Path, log: EventLog
) -> None:
    head = tmp_path / "events.parquet"
    pq.write_table(pq.read_table(shared_data / "open_bandit_small/events.parquet")[:10], head)
    with pytest.raises(DataError, match="field user_id is missing"):
        import_tables(log, head)


ROWS = [
    {"user_id": 7, "item_id": "a", "event_type": "purchase", "ts": 2_000, "price": 1.5},
    {"user_id": 8, "item_id": "ä b", "event_type": "view", "ts": 1_000, "price": None},
]


@pytest.mark.parametrize(
    "name", ["e.parquet", "e.csv", "e.csv.gz", "e.tsv", "e.jsonl", "e.jsonl.gz"]
)
def test_each_format_gives_the_same_records(tmp_path: Path, log: EventLog, name: str) -> None:
    path = tmp_path / name
    table = pa.Table.from_pylist(ROWS)
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        plain = tmp_path / "plain"
        options = pyarrow.csv.WriteOptions(delimiter="\t" if "tsv" in name else ",")
        if "json" in name:
            write_lines(plain, ROWS)
        else:
            pyarrow.csv.write_csv(table, plain, options)
        content = plain.read_bytes()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    report = import_tables(log, path)
    assert (report.first_ms, report.last_ms) == (1_000, 2_000)
    old, new = read(log, EVENTS)
    assert (old["user_id"], old["item_id"], old["price"]) == ("8", "ä b", None)
    assert (new["user_id"], new["event_type"], new["price"]) == ("7", "purchase", 1.5)
    ids = {old["event_id"], new["event_id"]}
    import_tables(log, write_lines(tmp_path / "again.jsonl", ROWS[::-1]))
    assert {event["event_id"] for event in read(log, EVENTS)} == ids


def test_times_may_be_timestamps_or_iso_text(tmp_path: Path, log: EventLog) -> None:
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    ms = 1_714_566_600_000
    base = {"user_id": "u", "item_id": "i"}
    stamps = ["2024-05-01T12:30:00", "2024-05-01 14:30:00+02:00", str(ms), ms, float(ms)]
    import_tables(log, write_lines(tmp_path / "e.jsonl", [{**base, "ts": ts} for ts in stamps]))
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "ts": pa.array([moment])})
    pq.write_table(table, tmp_path / "e.parquet")
    import_tables(log, tmp_path / "e.parquet")
    assert [event["ts"] for event in read(log, EVENTS)] == [ms] * 6


def test_equal_rows_stay_apart_and_other_columns_become_context(
    tmp_path: Path, log: EventLog
) -> None:
    row = {"user_id": "u", "item_id": "i", "ts": 5, "page": "home", "context": {"slot": 3}}
    import_tables(log, write_lines(tmp_path / "e.jsonl", [row, row, {**row, "rating": 4}]))
    events = read(log, EVENTS)
    assert len({event["event_id"] for event in events}) == 3
    assert [event["event_type"] for event in events].count("rating") == 1
    assert json.loads(events[0]["context"]) == {"slot": 3, "page": "home"}


def test_items_without_time_or_title_get_defaults(tmp_path: Path, log: EventLog) -> None:
    events = write_lines(tmp_path / "e.jsonl", ROWS)
    items = tmp_path / "i.csv"
    items.write_text("item_id,brand,available,price\n1,acme,false,3\n")
    import_tables(log, events, items)
    (item,) = read(log, ITEMS)
    assert (item["item_id"], item["title"], item["ts"]) == ("1", "", 1_000)
    assert (item["brand"], item["available"], item["price"]) == ("acme", False, 3.0)


BAD = (
    "user_id,item_id,ts,price\n"
    "u1,i1,1000,2.5\n"
    "u2,i1,1000,-1\n"
    "u3,i1,never,\n"
    ",i1,1000,\n"
    "u5,i1\n"
    "u6,i1,1000,dear\n"
    "u7,i1,1000,inf\n"
)


def test_bad_rows_are_named_and_nothing_is_imported(tmp_path: Path, log: EventLog) -> None:
    path = tmp_path / "e.csv"
    path.write_text(BAD)
    with pytest.raises(DataError) as caught:
        import_tables(log, path)
    text = str(caught.value)
    assert "nothing was imported: 6 of 7 rows are no valid records" in text
    assert f"{path}, row 2: field price: Expected `float` >= 0.0" in text
    assert f"{path}, row 3: field ts: Expected `int`, got `str`" in text
    assert f"{path}, row 4: field user_id is missing" in text
    assert "row 5" not in text
    assert "in all: 2 out_of_range, 2 wrong_type, 1 missing_field, 1 not_an_object" in text
    assert sum(log.latest(EVENTS).values()) == 0


def test_bad_rows_go_to_dead_letters_when_told_to(tmp_path: Path, log: EventLog) -> None:
    path = tmp_path / "e.csv"
    path.write_text(BAD)
    report = import_tables(log, path, skip_bad=True)
    assert (report.counts, report.skipped) == ({EVENTS: 1}, 6)
    letters = [json.loads(v) for t in raw(log, DEAD_LETTER) for v in t["value"].to_pylist()]
    assert [(letter["topic"], letter["offset"]) for letter in letters] == [
        (EVENTS, row) for row in range(2, 8)
    ]
    assert letters[4]["field"] == "price"


@pytest.mark.parametrize("name", ["items.parquet", "items.csv"])
def test_a_price_that_is_nan_is_unknown(tmp_path: Path, log: EventLog, name: str) -> None:
    path, events = tmp_path / name, tmp_path / "e.csv"
    if path.suffix == ".csv":
        path.write_text("item_id,title,price\ni1,tea,2.5\ni2,tea,nan\n")
    else:
        columns = {"item_id": ["i1", "i2"], "title": ["tea", "tea"], "price": [2.5, math.nan]}
        pq.write_table(pa.table(columns), path)
    events.write_text("user_id,item_id,ts,price\nu1,i1,1000,nan\n")
    import_tables(log, events, path)
    assert {i["item_id"]: i["price"] for i in read(log, ITEMS)} == {"i1": 2.5, "i2": None}
    assert [event["price"] for event in read(log, EVENTS)] == [None]


@pytest.mark.parametrize("name", ["items.parquet", "items.csv", "items.jsonl"])
def test_promotions_are_an_object_of_shares(tmp_path: Path, log: EventLog, name: str) -> None:
    path, events = tmp_path / name, tmp_path / "e.csv"
    told = [{"mailer": 1.0, "display": None}, {"mailer": 0.5, "display": math.nan}, None]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"item_id": ["i1", "i2", "i3"], "promotion": told}), path)
    elif path.suffix == ".csv":
        path.write_text('item_id,promotion\ni1,"{""mailer"": 1}"\ni2,"{""mailer"": 0.5}"\ni3,{}\n')
    else:
        write_lines(path, [{"item_id": "i1", "promotion": {"mailer": 1}}, {"item_id": "i3"}])
    events.write_text("user_id,item_id,ts\nu1,i1,1000\n")
    import_tables(log, events, path)
    found = {item["item_id"]: item["promotion"] for item in read(log, ITEMS)}
    expected = {
        "i1": [("mailer", 1.0)],
        "i2": [("mailer", 0.5)],
        "i3": None if path.suffix != ".csv" else [],
    }
    assert found == {item_id: expected[item_id] for item_id in found}
    wrong = write_lines(tmp_path / "wrong.jsonl", [{"item_id": "i1", "promotion": {"mailer": 2}}])
    with pytest.raises(DataError, match="promotion"):
        import_tables(log, events, wrong)
    wrong = write_lines(tmp_path / "list.jsonl", [{"item_id": "i1", "promotion": [1]}])
    with pytest.raises(DataError, match="field promotion: expected an object"):
        import_tables(log, events, wrong)


def test_lines_that_are_no_json_are_bad_rows(tmp_path: Path, log: EventLog) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"user_id": "u", "item_id": "i", "ts": 1}\n\n{"user_id": \n[1]\n')
    report = import_tables(log, path, skip_bad=True)
    assert (report.counts, report.skipped) == ({EVENTS: 1}, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.xlsx", b"", "tables are read from .parquet, .csv"),
        ("e.parquet", b"nonsense", "not a .parquet file that can be read"),
        ("e.csv", b"user_id,item_id\n\xff,\xfe\n", "not a .csv file that can be read"),
        (None, b"", "no such file"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, log: EventLog, name: str | None, content: bytes, message: str
) -> None:
    path = tmp_path / (name or "absent.csv")
    if name:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_tables(log, path)


def test_an_empty_table_imports_nothing(tmp_path: Path, log: EventLog) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,ts\n")
    report = import_tables(log, path)
    assert (report.counts, report.first_ms, report.last_ms) == ({}, None, None)


# what was shown


def shown(item: str, **other: object) -> dict:
    return {"user_id": "ann", "item_id": item, "propensity": 0.5, "ts": 5} | other


@pytest.mark.parametrize("name", ["shown.jsonl", "shown.csv"])
def test_shown_items_of_a_request_are_one_answer(tmp_path: Path, log: EventLog, name: str) -> None:
    events = write_lines(tmp_path / "events.jsonl", [{"user_id": "ann", "item_id": "a", "ts": 6}])
    rows = [
        shown("a", request_id="r1", policy="drawn", position=3),
        shown("b", request_id="r2", policy="drawn", placement="front", ts=4),
        shown("c", request_id="r1", policy="drawn", propensity=1),
    ]
    if name.endswith("csv"):
        table = pa.Table.from_pylist([dict.fromkeys(rows[0] | rows[1]) | row for row in rows])
        pyarrow.csv.write_csv(table, tmp_path / name)
    else:
        write_lines(tmp_path / name, rows)
    report = import_tables(log, events, exposures_path=tmp_path / name)
    assert report.counts == {EXPOSURES: 2, EVENTS: 1}
    second, first = read(log, EXPOSURES)
    assert (first["request_id"], first["policy"], first["model_version"]) == ("r1", "drawn", 0)
    places = [(i["item_id"], i["position"], i["propensity"]) for i in first["items"]]
    assert places == [("a", 3, 0.5), ("c", 2, 1.0)]
    assert second["items"][0]["placement"] == "front"


def test_shown_items_without_a_request_are_answers_of_their_own(
    tmp_path: Path, log: EventLog
) -> None:
    events = write_lines(tmp_path / "events.jsonl", [{"user_id": "ann", "item_id": "a", "ts": 6}])
    path = write_lines(tmp_path / "shown.jsonl", [shown("a"), shown("a"), shown("b")])
    import_tables(log, events, exposures_path=path)
    once = {row["request_id"] for row in read(log, EXPOSURES)}
    import_tables(log, events, exposures_path=path)
    assert len(once) == 3
    assert {row["request_id"] for row in read(log, EXPOSURES)} == once  # known, so without effect


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_id": "ann", "item_id": "a", "ts": 5}, r"missing_field.*propensity|propensity"),
        (shown("a", propensity=0), "propensity"),
        (shown("a", propensity="often"), "propensity"),
        (shown("b", request_id="r1", ts=9), "field ts: 9, but 5 in rows of the same request"),
        (shown("b", request_id="r1", policy="other"), "field policy: 'other', but 'imported'"),
    ],
)
def test_shown_items_that_are_none(tmp_path: Path, log: EventLog, row: dict, reason: str) -> None:
    events = write_lines(tmp_path / "events.jsonl", [{"user_id": "ann", "item_id": "a", "ts": 6}])
    path = write_lines(tmp_path / "shown.jsonl", [shown("a", request_id="r1"), row])
    with pytest.raises(DataError, match=rf"1 of 3 rows.*shown.jsonl, row 2: .*{reason}"):
        import_tables(log, events, exposures_path=path)
    report = import_tables(log, events, skip_bad=True, exposures_path=path)
    assert (report.skipped, report.counts[EXPOSURES]) == (1, 1)
