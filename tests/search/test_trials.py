"""A real search on a small Ray cluster, through its command."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from jobs import tune
from ray_rec.config import load_config
from ray_rec.errors import ConfigError
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.search.trials import SearchOptions
from ray_rec.training.stream import connect
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits


@pytest.fixture
def cluster() -> Iterator[None]:
    connect(num_cpus=2)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_search_finds_tells_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 200)
    settings = (*SMALL, f"log=sqlite:///{tmp_path}/log.db", f"state_dir={tmp_path}/state")
    space = ("learner.lr=loguniform:1e-4:1e-2", "model.heads=choice:1,2,3", "model.blocks=int:1:2")
    command = ["tune", "--out", str(tmp_path / "out"), "--trials=3", "--passes=2", "--repeats"]
    command += ["--cpus-per-trial=0.5", "--seed=1"]
    command += [f"--set={text}" for text in settings] + [f"--space={text}" for text in space]

    def run(*more: str) -> dict:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        assert tune.main() == 0
        return json.loads(capsys.readouterr().out)

    told = run()
    found = json.loads(Path(told["json"]).read_text())
    values = [trial["curve"][-1]["ndcg@10"] for trial in found["trials"] if trial["curve"]]
    assert values == sorted(values, reverse=True)
    assert told["best"]["curve"][-1]["ndcg@10"] == values[0] > 0
    failed = [trial for trial in found["trials"] if trial["error"]]
    assert len(values) + len(failed) == 3
    assert {trial["number"] for trial in found["trials"]} == {1, 2, 3}
    assert all("multiple of model.heads" in trial["error"] for trial in failed)
    best = load_config(told["config"], environ={})
    assert best.learner.lr == told["best"]["params"]["learner.lr"]
    assert best.features.lateness_ms == 0, "of the configuration that was searched"
    assert run("--resume")["best"] == told["best"]


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"concurrent": -1}, {"cpus_per_trial": 0.0}])
def test_options_that_could_not_work_are_named(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="at least 1, at least 0, and above 0"):
        SearchOptions(**wrong)
