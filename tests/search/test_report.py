"""A search's files: the table, the plots, and a configuration that can be read again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_rec.config import RunConfig, changed, load_config
from ray_rec.errors import DataError
from ray_rec.search.report import search_html, to_toml, write_search
from ray_rec.search.trials import METRIC, Trial

GOOD = Trial(1, {"learner.lr": 0.01, "model.blocks": "2"}, [{METRIC: 0.25}, {METRIC: 0.5}], 3.0)
STOPPED = Trial(0, {"learner.lr": 0.001, "model.blocks": "1"}, [{METRIC: 0.125}], 1.0)
FAILED = Trial(2, {"learner.lr": 0.1, "model.blocks": "1"}, [], 0.0, "Diverged: <window 3>")
FOUND: dict[str, Any] = {
    "metric": METRIC,
    "queries": 12,
    "learned": 3400,
    "space": [
        {"key": "learner.lr", "kind": "loguniform", "values": (0.001, 0.1)},
        {"key": "model.blocks", "kind": "choice", "values": ("1", "2")},
    ],
    "trials": [1, 2, 3],
    "options": {
        "search": "optuna",
        "seed": 7,
        "objective": {"model": "hybrid", "passes": 2, "validation": 0.1, "test": 0.2},
    },
    **dict.fromkeys(("config", "seed", "data", "commit", "machine", "duration_s", "stages_s")),
}


def test_the_value_of_a_trial_is_that_after_its_last_pass() -> None:
    assert GOOD.value == 0.5
    assert STOPPED.value == 0.125
    assert FAILED.value == -math.inf
    assert replace(GOOD, error="killed").value == -math.inf
    assert replace(GOOD, curve=[{METRIC: math.nan}]).value == -math.inf


def test_the_page_has_all_trials_and_a_plot_for_each_key() -> None:
    page = search_html(FOUND, [GOOD, STOPPED, FAILED])
    rows = page.split("<tr>")[1:]
    assert [row.count("<td>") for row in rows] == [7] * 4
    assert "<td>1</td><td>0.5000</td><td>0.01</td><td>2</td><td>2</td><td>3.0</td>" in rows[1]
    assert "Diverged: &lt;window 3&gt;" in rows[3]
    assert page.count("<figure>") == 4
    assert "log10 of learner.lr" in page
    assert "model.blocks (0: 1, 1: 2)" in page
    assert "3,400 events 2 times" in page


def test_the_best_configuration_is_one_that_can_be_read(tmp_path: Path) -> None:
    told = write_search(FOUND, [GOOD, STOPPED], RunConfig(), tmp_path / "out")
    best = load_config(told["config"], environ={})
    assert best.learner == changed(RunConfig(), ["learner.lr=0.01"]).learner
    assert best.model.blocks == 2
    assert (tmp_path / "out" / "search.json").is_file()


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    config = load_config(
        None,
        (
            "log=kafka://broker:9092",
            'encoder.model=a "quoted" näme',
            'features.target_types=["view", "purchase"]',
            "features.attribution_by_outcome_ms={purchase=60000}",
            "learner.lr=1e-5",
            "training.use_gpu=true",
        ),
        environ={},
    )
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path, environ={}) == config


def test_a_search_without_a_result_says_why_and_leaves_its_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 trials .*\(Diverged: <window 3>\); see"):
        write_search(FOUND, [FAILED], RunConfig(), tmp_path)
    assert "Diverged" in (tmp_path / "search.html").read_text()
