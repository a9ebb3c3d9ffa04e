"""The backtest of a small shop: what it writes, that it repeats, and that it never looks ahead."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError, DataError, LogUnavailable
from ray_rec.evaluation.asking.stretch import ends, starts
from ray_rec.evaluation.backtest import TOPICS, Options, backtest, run_backtest
from ray_rec.evaluation.prequential import Prequential
from ray_rec.events.decode import decode
from ray_rec.events.schema import EVENTS, ITEMS, LOG_SCHEMA
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.cut import cut
from ray_rec.log.window import Window
from ray_rec.model.config import EncoderConfig
from tests.model.encoders import make_encoder
from tests.training.conftest import SMALL
from tests.training.shop import START_MS, fill_items, fill_visits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    with open_log(f"sqlite:///{folder}/log.db") as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 400)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    return load_config(None, (*SMALL, *places), environ={})


@pytest.fixture
def log(config: RunConfig) -> Iterator[EventLog]:
    with open_log(config.log) as log:
        yield log


def tables_of(log: EventLog, window: Window) -> dict[str, pa.Table]:
    found = {}
    for topic in TOPICS:
        raw = [LOG_SCHEMA.empty_table(), *log.read(topic, window.ranges[topic])]
        found[topic] = decode(topic, pa.concat_tables(raw)).table
    return found


def test_report_says_what_was_found_and_where_it_comes_from(
    config: RunConfig, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    headline = run_backtest(
        config, tmp_path, progress=lambda done, total, _: told.append((done, total))
    )
    report = json.loads((tmp_path / "backtest.json").read_text())
    assert told[-1] == (848, 848)
    assert set(report["recall"]) == {
        "hybrid", "popularity", "recency-popularity", "item-knn", "own-frequency",
    }  # fmt: skip
    assert headline["recall"]["hybrid"]["hr@10"] == pytest.approx(
        report["recall"]["hybrid"]["hr@10"]["value"], abs=1e-4
    )
    assert report["data"]["counts"] == {
        "items": 48, "events": 400, "exposures": 400, "controls": 0, "dead": 0,
    }  # fmt: skip
    assert len(report["data"]["digest"]) == 64
    assert report["config"]["model"]["dim"] == 16
    assert report["seed"] == 0
    assert report["clicks"]["purchase"]["rows"] > 100
    assert report["targets"] == sum(b["targets"] for b in report["by_times_seen"].values())

    page = (tmp_path / "backtest.html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|https?://", page)
    # four metrics as bars and as curves, the warm-up of items and users, two losses, two of clicks
    assert page.count("<svg") == 4 + 4 + 2 + 2 + 2
    for title in (
        "As an item warms up",
        "As a user becomes known",
        "recall loss",
        "click loss",
        "purchase: observed rate",
    ):
        assert f">{title}</" in page
    assert "own-frequency" in page


@pytest.fixture(scope="module")
def plain(config: RunConfig) -> dict[str, Any]:
    return backtest(config, Options(max_queries=40))


def test_twins_are_asked_the_same_and_change_nothing(
    config: RunConfig, plain: dict[str, Any], tmp_path: Path
) -> None:
    headline = run_backtest(config, tmp_path, Options(max_queries=40, twins=True))
    report = json.loads((tmp_path / "backtest.json").read_text())
    for part in ("recall", "above_popularity", "by_times_seen", "clicks", "windows"):
        assert json.dumps(report[part]) == json.dumps(plain[part]), part

    assert list(report["twins"]) == ["recall-only", "click-only"]
    for name, twin in report["twins"].items():
        mine, theirs = (twin["recall"][ranker]["mrr"]["value"] for ranker in ("hybrid", name))
        assert mine == plain["recall"]["hybrid"]["mrr"]["value"]
        assert mine != theirs
        assert twin["above"]["mrr"]["value"] == pytest.approx(mine - theirs)
        if name == "recall-only":  # its click head learned nothing that could be compared
            assert twin["clicks"] == {}
            continue
        areas = {key: found["value"] for key, found in twin["clicks"]["purchase"]["auc"].items()}
        assert areas["hybrid"] == plain["clicks"]["purchase"]["auc"]["hybrid"]["value"]
        assert areas["difference"] == pytest.approx(areas["hybrid"] - areas[name])
        assert headline["above_twins"][name]["purchase auc"] == round(areas["difference"], 4)
    assert (tmp_path / "backtest.html").read_text().count("Two tasks beside") == 2


def test_a_twin_is_the_model_with_one_task(config: RunConfig) -> None:
    """A run that learns recall alone is its own recall-only twin."""
    model = replace(config.model, alpha=0.0)
    report = backtest(replace(config, model=model), Options(max_queries=10, twins=True))
    twin = report["twins"]["recall-only"]
    assert twin["recall"]["hybrid"] == twin["recall"]["recall-only"]
    assert twin["above"]["mrr"]["value"] == 0


def test_calibration_changes_probabilities_alone(config: RunConfig, plain: dict[str, Any]) -> None:
    model = replace(config.model, calibration="platt")
    made = backtest(replace(config, model=model), Options(max_queries=40))
    assert made["recall"] == plain["recall"]
    assert made["clicks"]["purchase"]["log_loss"] != plain["clicks"]["purchase"]["log_loss"]


def test_people_with_habits_are_known_better_than_by_popularity(config: RunConfig) -> None:
    report = backtest(config, Options(max_queries=0))
    assert report["above_popularity"]["own-frequency"]["mrr"]["low"] > 0
    assert report["clicks"]["purchase"]["auc"]["hybrid"]["value"] > 0.5


def test_it_repeats_itself(config: RunConfig) -> None:
    first, second = (backtest(config, Options(max_queries=20)) for _ in range(2))
    for part in ("recall", "by_times_seen", "clicks", "data"):
        assert json.dumps(first[part]) == json.dumps(second[part])


def test_the_encoder_may_learn_with_the_model(config: RunConfig, tmp_path: Path) -> None:
    folder = str(make_encoder(tmp_path / "gpt2", "gpt2"))
    frozen = EncoderConfig(model=folder, max_tokens=8)
    learning = replace(frozen, policy="adapter", bottleneck=4)
    learner = replace(config.learner, encoder_lr=0.01)
    one, other = (
        backtest(replace(config, encoder=encoder, learner=learner), Options(max_queries=50))
        for encoder in (frozen, learning)
    )
    assert one["recall"]["hybrid"] != other["recall"]["hybrid"]
    assert one["recall"]["item-knn"] == other["recall"]["item-knn"]
    assert one["windows"][0]["counts"] == other["windows"][0]["counts"]


def test_what_happens_from_a_time_on_changes_no_answer_before_it(
    config: RunConfig, log: EventLog
) -> None:
    features = replace(config.features, covisits=20)
    model = replace(config.model, late_covisits=3.0)
    config = replace(config, features=features, model=model)
    windows = list(cut(log, TOPICS, config.training.window_records))
    last = tables_of(log, windows[2])
    now = int(np.median(last[EVENTS]["ts"].to_numpy()))
    changed = dict(last)
    late = [ts >= now for ts in last[EVENTS]["ts"].to_pylist()]
    items = [
        "i0" if later else item
        for later, item in zip(late, last[EVENTS]["item_id"].to_pylist(), strict=True)
    ]
    place = last[EVENTS].schema.get_field_index("item_id")
    changed[EVENTS] = last[EVENTS].set_column(place, "item_id", pa.array(items))

    def earlier_ranks(third: dict[str, pa.Table]) -> dict[str, list[float]]:
        run = Prequential(config, Options(max_queries=0))
        for window in windows[:2]:
            run.step(window, tables_of(log, window))
        run.step(windows[2], third)
        number, queries, _, ranks = run.ledger._ranked[-1]
        assert number == 2
        before = (queries.ts < now)[queries.target_query]
        assert 10 < before.sum() < len(before)
        return {name: found[before].tolist() for name, found in ranks.items()}

    assert earlier_ranks(last) == earlier_ranks(changed)


def test_a_stretch_between_two_times(config: RunConfig) -> None:
    start, end = START_MS + 100 * 60_000, START_MS + 300 * 60_000
    report = backtest(config, Options(start=str(start), end=str(end), max_queries=5))
    assert 190 <= report["data"]["counts"]["events"] <= 210
    assert report["data"]["counts"]["items"] == 48


def test_places_on_the_log(log: EventLog) -> None:
    assert starts(log, TOPICS, None)[EVENTS] == log.earliest(EVENTS)
    iso = starts(log, TOPICS, "2023-11-14T22:30:00")
    assert iso[EVENTS] == log.offsets_at(EVENTS, START_MS + 1_000_000)
    assert iso[ITEMS] == log.earliest(ITEMS)
    asked = ends(log, TOPICS, '{"events": {"0": 3, "1": 999999}}')
    assert asked[EVENTS] == {0: 3, 1: log.latest(EVENTS)[1]}
    for wrong in ("yesterday", '{"events": 3}', "{"):
        with pytest.raises(ConfigError, match=r"write"):
            starts(log, TOPICS, wrong)


@pytest.mark.parametrize("name", ["warmup_windows", "max_queries", "cutoff"])
def test_options_that_cannot_work(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        Options(**{name: -1})


def test_nothing_to_test_says_what_to_do(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer warm-up windows"):
        backtest(config, Options(warmup_windows=99))
    other = load_config(None, (f"log=sqlite:///{tmp_path}/none.db",), environ={})
    with pytest.raises(LogUnavailable):
        backtest(other)
