"""Each place that metrics go to, asked as its readers ask: HTTP, event files, another process."""

import math
import sys
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import wandb
from mlflow import MlflowClient

from ray_rec.errors import ConfigError, StateError
from ray_rec.tracking import Tracker
from ray_rec.tracking.last import NAME, Last, last_recorded
from ray_rec.tracking.mlflow import MLflow
from ray_rec.tracking.paced import Paced
from ray_rec.tracking.prometheus import Prometheus
from ray_rec.tracking.tensorboard import TensorBoard
from ray_rec.tracking.wandb import WandB
from tests.scraping import HOST, free_port, scrape
from tests.tracking import wandb_files
from tests.tracking.event_files import events_of, points

METRICS = {
    "window": 7.0,
    "events": 12.0,
    "dead_letters/not_json": 2.0,
    "lag_records/events/0": 3.0,
    "lag_records/events/1": 0.0,
    "loss/recall": math.nan,
    "model_version": 8.0,
    "other/users": 4.0,
}


# what every tracker promises


MAKERS: dict[str, Callable[[Path], Tracker]] = {
    "last": lambda folder: Last(str(folder)),
    "prometheus": lambda _: Prometheus(HOST, free_port()),
    "tensorboard": lambda folder: TensorBoard(folder / "tensorboard"),
    "paced": lambda folder: Paced(TensorBoard(folder / "tensorboard")),
    "wandb": lambda folder: WandB(folder, "shop", {}),
    "mlflow": lambda folder: MLflow(f"file://{folder}/runs", "shop", {}),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # made faster than a database


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_steps_may_repeat_and_go_back_and_values_may_be_nan(
    make: Callable[[Path], Tracker], tmp_path: Path
) -> None:
    with closing(make(tmp_path)) as tracker:
        for step in (3, 3, 4, 2, 2, 3):
            tracker.log(step, METRICS)
        tracker.log(5, {})


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_tracker_that_was_told_nothing_leaves_nothing(
    make: Callable[[Path], Tracker], tmp_path: Path
) -> None:
    make(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


# Prometheus


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def prometheus(port: int) -> Iterator[Prometheus]:
    with closing(Prometheus(HOST, port)) as tracker:
        yield tracker


def test_a_scrape_sees_what_was_logged_last(prometheus: Prometheus, port: int) -> None:
    assert scrape(port) == {}
    prometheus.log(6, {**METRICS, "late_outcomes": 1.0})
    prometheus.log(7, METRICS)
    seen = scrape(port)
    assert math.isnan(seen.pop(("ray_rec_stream_loss", (("task", "recall"),))))
    assert seen == {
        ("ray_rec_stream_window", ()): 7,
        ("ray_rec_stream_events_total", ()): 12,
        ("ray_rec_stream_dead_letters_total", (("reason", "not_json"),)): 2,
        ("ray_rec_stream_lag_records", (("partition", "0"), ("topic", "events"))): 3,
        ("ray_rec_stream_lag_records", (("partition", "1"), ("topic", "events"))): 0,
        ("ray_rec_model_version", ()): 8,
    }


def test_a_port_in_use_is_named_with_the_way_out(prometheus: Prometheus, port: int) -> None:
    with pytest.raises(ConfigError, match=rf"{HOST}:{port} \(.*in use\); choose another, or 0"):
        Prometheus(HOST, port)


def test_a_host_that_is_not_here_is_named(port: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on nowhere.invalid:{port}"):
        Prometheus("nowhere.invalid", port)


def test_the_port_is_free_after_close(port: int) -> None:
    for _ in range(2):
        with closing(Prometheus(HOST, port)):
            assert scrape(port) == {}
    with pytest.raises(urllib.error.URLError, match="refused"):
        scrape(port)


# TensorBoard


def test_event_files_hold_every_measurement_under_its_path(tmp_path: Path) -> None:
    with closing(TensorBoard(tmp_path)) as board:
        board.log(7, {"loss/recall": 2.5, "lag_records/events/0": 3.0})
        written = points(tmp_path)  # at once, not at the end
    assert written == [(7, {"loss/recall": 2.5, "lag_records/events/0": 3.0})]
    assert events_of(tmp_path)[0].file_version == "brain.Event:2"


def test_windows_that_are_learned_again_replace_what_was_drawn(tmp_path: Path) -> None:
    with closing(TensorBoard(tmp_path)) as board:
        for step, loss in ((4, 4.0), (5, 3.0), (6, 2.0), (5, 3.5), (6, 2.5)):
            board.log(step, {"loss": loss})
    assert points(tmp_path) == [(4, {"loss": 4.0}), (5, {"loss": 3.5}), (6, {"loss": 2.5})]


def test_a_run_after_a_crash_has_a_file_of_its_own_and_hides_what_it_learns_again(
    tmp_path: Path,
) -> None:
    boards = [TensorBoard(tmp_path) for _ in range(2)]
    boards[0].log(5, {"loss": 3.0})
    boards[1].log(5, {"loss": 3.5})  # in the same second
    for board in boards:
        board.close()
    assert len(list(tmp_path.iterdir())) == 2
    starts = [event.step for event in events_of(tmp_path) if event.HasField("session_log")]
    assert starts == [5, 5]


# Weights & Biases


def test_an_offline_run_holds_every_point_under_its_window(tmp_path: Path) -> None:
    with closing(WandB(tmp_path, "shop", {"learner": {"lr": 0.003}})) as tracker:
        for step, loss in ((5, 3.0), (6, 2.0), (5, 3.5)):  # learned again after a failure
            tracker.log(step, {"loss/recall": loss, "loss/click": math.nan})
    told = wandb_files.points(tmp_path)
    assert [(point["window"], point["loss/recall"]) for point in told] == [
        (5, 3.0),
        (6, 2.0),
        (5, 3.5),
    ]
    run = wandb_files.run_of(tmp_path)
    assert run.project == "shop"
    kept = {item.key: item.value_json for item in run.config.update}
    assert kept["learner"] == '{"lr":0.003}'


@pytest.fixture
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # it reads its settings once in a process
    yield
    wandb.teardown()


@pytest.mark.usefixtures("nobody_logged_in")
def test_without_a_key_the_ways_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no key .* `wandb login`, .* WANDB_MODE=offline"):
        WandB(tmp_path, "shop", {})


# MLflow


def test_a_database_holds_every_point_and_the_configuration(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with closing(MLflow(uri, "shop", {"log": "here", "learner": {"lr": 0.003}})) as tracker:
        for step, loss in ((5, 3.0), (6, 2.0)):
            tracker.log(step, {"loss/recall": loss, "hr@10": 0.5})
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("shop")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    told = client.get_metric_history(run.info.run_id, "loss/recall")
    assert [(point.step, point.value) for point in told] == [(5, 3.0), (6, 2.0)]
    assert run.data.metrics["hr_10"] == 0.5  # MLflow takes no @
    assert run.data.params == {"log": "here", "learner.lr": "0.003"}
    assert run.info.status == "FINISHED"


# packages that are not there


@pytest.mark.parametrize(
    ("package", "make"), [(name, MAKERS[name]) for name in ("wandb", "mlflow")]
)
def test_a_missing_package_is_named_with_its_extra(
    package: str,
    make: Callable[[Path], Tracker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"names {package}, .* pip install \"ray-rec\[{package}\]"
    ):
        make(tmp_path)


# last.json


def test_what_was_told_last_is_read_by_another(tmp_path: Path) -> None:
    assert last_recorded(str(tmp_path)) is None
    last = Last(str(tmp_path))
    last.log(6, {"window": 6.0})
    last.log(7, METRICS)
    told = last_recorded(str(tmp_path))
    assert told is not None
    assert told.window == 7
    assert math.isnan(told.metrics.pop("loss/recall"))
    assert told.metrics == {k: v for k, v in METRICS.items() if k != "loss/recall"}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"at_ms": 1}'])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / NAME).write_bytes(damaged)
    with pytest.raises(StateError, match=r"last\.json .* is damaged .*: remove it"):
        last_recorded(str(tmp_path))
