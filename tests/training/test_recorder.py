"""The recorder beside a stream: it tells all, and whatever fails beside it stops nothing."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError
from ray_rec.events.schema import EVENTS, EXPOSURES, Record
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.registry import Draft, Registry
from ray_rec.tracking.last import last_recorded
from ray_rec.training.plans import PlanStore
from ray_rec.training.recorder import Recorder
from tests.tracking import wandb_files
from tests.waiting import until


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.metrics: Mapping[str, float] = {}
        self.closed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)
        self.metrics = metrics

    def close(self) -> None:
        self.closed = True


class Broken(Told):
    """Fails whatever it is asked."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        super().log(step, metrics)
        raise OSError("no space left")

    def close(self) -> None:
        raise OSError("gone")


class Stuck(Told):
    """Does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.entered.set()
        assert self.let_go.wait(60)
        super().log(step, metrics)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    places = (
        f"log=sqlite:///{tmp_path}/log.db",
        f"registry={tmp_path}/registry",
        f"state_dir={tmp_path}/state",
    )
    return load_config(None, places, environ={})


@pytest.fixture
def log(config: RunConfig) -> Iterator[EventLog]:
    with open_log(config.log) as opened:
        create_standard_topics(opened, partitions=1)
        yield opened


def visits(log: EventLog, num: int) -> None:
    for topic in (EVENTS, EXPOSURES):
        log.append(topic, [Record(b"u", b"{}", 1)] * num)


def publish(config: RunConfig, version: int, end: int) -> None:
    """Publish a version that has learned windows up to `version - 1`, events up to `end`."""
    draft = Draft(None, (version - 1, version - 1), {EVENTS: {0: end}}, {}, "encoder")
    Registry(config.registry, create=True).publish(version, {"w": torch.ones(1)}, ["a"], draft)


def plan(config: RunConfig, number: int, end: int) -> None:
    nothing = {"items": {0: (0, 0)}, "controls": {0: (0, 0)}}
    window = Window(number, {EVENTS: {0: (0, end)}, EXPOSURES: {0: (0, end)}, **nothing})
    PlanStore(f"{config.state_dir}/plans").put(window)


@pytest.mark.usefixtures("log")
def test_a_stream_that_never_learned_tells_nothing(config: RunConfig) -> None:
    told = Told()
    with Recorder(config, [told]):
        pass
    assert told.steps == []
    assert told.closed


def test_windows_are_told_with_lag_and_the_served_version(config: RunConfig, log: EventLog) -> None:
    visits(log, 10)
    plan(config, 0, end=4)
    publish(config, 1, end=4)
    told = Told()
    with Recorder(config, [told]) as recorder:
        recorder.take({"window": 0, "records": 8, "events": 4, "recall_loss": 3.5})
        until(lambda: told.steps)
        assert told.metrics["lag_records/events/0"] == 6
        visits(log, 1)  # no window comes, and lag is told all the same
        until(lambda: told.metrics["lag_records/events/0"] == 7)
    assert set(told.steps) == {0}
    assert told.metrics["events"] == 4
    assert told.metrics["loss/recall"] == 3.5
    assert told.metrics["lag_records/exposures/0"] == 7
    assert told.metrics["lag_records/items/0"] == 0
    assert told.metrics["model_version"] == 1
    assert 0 <= told.metrics["model_version_age_seconds"] < 3600


def test_before_its_first_window_a_run_tells_of_the_newest_version(
    config: RunConfig, log: EventLog
) -> None:
    visits(log, 10)
    publish(config, 3, end=8)
    told = Told()
    with Recorder(config, [told]):
        until(lambda: told.steps)
    assert set(told.steps) == {2}
    assert told.metrics["lag_records/events/0"] == 2
    assert "window" not in told.metrics


def test_the_end_of_a_short_run_is_told(config: RunConfig, log: EventLog) -> None:
    visits(log, 5)
    plan(config, 1, end=5)
    with Recorder(config) as recorder:
        for number in (0, 1):
            recorder.take({"window": number, "records": 5})
    told = last_recorded(config.state_dir)
    assert told is not None
    assert told.window == 1
    assert told.metrics["records"] == 10
    assert told.metrics["lag_records/events/0"] == 0
    assert list((Path(config.state_dir) / "tensorboard").iterdir())


def test_a_broken_tracker_is_a_warning_and_the_others_go_on(
    config: RunConfig, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    broken, told = Broken(), Told()
    with Recorder(config, [broken, told]) as recorder:
        recorder.take({"window": 0})
        until(lambda: len(told.steps) >= 2)
    assert len(broken.steps) == len(told.steps)
    assert told.closed
    warnings = [record.getMessage() for record in caplog.records]
    assert [text for text in warnings if "no space left" in text] == [
        "Broken fails, metrics go on without it: no space left"
    ]
    assert any("closing Broken fails" in text for text in warnings)


def test_a_tracker_that_hangs_holds_no_window_up(config: RunConfig, log: EventLog) -> None:
    stuck = Stuck()
    with Recorder(config, [stuck]) as recorder:
        recorder.take({"window": 0, "events": 1})
        assert stuck.entered.wait(60)
        for number in range(1, 1000):
            recorder.take({"window": number, "events": 1})
        assert stuck.steps == []
        stuck.let_go.set()
    assert stuck.steps[-1] == 999
    assert stuck.metrics["events"] == 1000


def test_a_log_that_does_not_answer_leaves_lag_out_until_it_does(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    plan(config, 0, end=0)
    told = Told()
    with Recorder(config, [told]) as recorder:  # there is no file yet
        recorder.take({"window": 0, "events": 4})
        until(lambda: len(told.steps) >= 2)
        assert told.metrics["events"] == 4
        assert not [path for path in told.metrics if path.startswith("lag_records")]
        with open_log(config.log) as log:
            create_standard_topics(log, partitions=1)
        until(lambda: told.metrics.get("lag_records/events/0") == 0)
    assert caplog.text.count("the log's end fails, metrics go on without it: no log at") == 1


def test_the_configuration_chooses_the_trackers(config: RunConfig, log: EventLog) -> None:
    plain = load_config(None, (f"log={config.log}", *places(config), "training.trackers=[]"))
    with Recorder(plain) as recorder:
        recorder.take({"window": 0})
    assert not (Path(config.state_dir) / "tensorboard").exists()
    assert last_recorded(config.state_dir) is not None
    with pytest.raises(ConfigError, match=r"training.trackers.*'teletype'"):
        load_config(None, ('training.trackers=["teletype"]',), environ={})


def test_a_run_is_filed_with_weights_and_biases_under_its_state(
    config: RunConfig, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    named = ('training.trackers=["wandb"]', "training.experiment=shop")
    with Recorder(load_config(None, (f"log={config.log}", *places(config), *named))) as recorder:
        recorder.take({"window": 3, "events": 2})
    (told,) = wandb_files.points(Path(config.state_dir))
    assert told["window"] == 3
    assert told["events"] == 2
    assert wandb_files.run_of(Path(config.state_dir)).project == "shop"


def places(config: RunConfig) -> tuple[str, str]:
    return f"registry={config.registry}", f"state_dir={config.state_dir}"


def test_a_state_on_an_object_store_has_no_event_files_and_says_so(
    config: RunConfig, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    places = (f"log={config.log}", f"registry={config.registry}", "state_dir=memory://far")
    far = load_config(None, (*places, 'training.trackers=["tensorboard", "mlflow"]'))
    with Recorder(far) as recorder:
        recorder.take({"window": 0})
    assert last_recorded("memory://far") is not None
    for name in ("tensorboard", "mlflow"):
        assert f"no files for {name}: state_dir memory://far is not local" in caplog.text
