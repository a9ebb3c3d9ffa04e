"""The stream: one long-lived Ray Train worker group, fed window after window from the log."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from ray_rec.config import RunConfig
from ray_rec.log.base import Offsets, create_standard_topics, open_log
from ray_rec.registry import Registry
from ray_rec.training.actors import start_actors
from ray_rec.training.checkpoint import check_encoder
from ray_rec.training.config import TrainingConfig
from ray_rec.training.interrupt import signals_kept
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.plans import check_plans
from ray_rec.training.recorder import Recorder

if TYPE_CHECKING:
    from ray.train.torch import TorchConfig

    from ray_rec.training.worker import WorkerSetup

_log = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class StreamReport:
    """What a run did: windows and records learned by it, and the version in service at its end."""

    windows: int
    records: int
    version: int | None
    metrics: dict[str, Any]


def run_stream(
    config: RunConfig,
    *,
    bounded: bool = False,
    plans: str | None = None,
    checkpoint: int | None = None,
    stop: threading.Event | None = None,
    on_metrics: OnMetrics | None = None,
) -> StreamReport:
    """Learn from the log, continuing where the last run with this `state_dir` stopped.

    Where the encoder learns too, a bounded run makes one version, at its end, because before one
    the whole catalogue is encoded anew; with `training.patience` it makes them as it goes, to be
    judged. With `training.passes` above 1 a bounded run gathers what is new and learns it so often,
    and with `training.patience` publishes what it knew after the best pass (`stopping`).

    Args:
        config: the run's configuration.
        bounded: end at the offsets that the log has now, instead of following it.
        plans: folder of another run's plans; they are learned again, one by one, to their end.
        checkpoint: continue from the newest checkpoint up to this one, over the same plans as
            before; None takes the newest.
        stop: set it to end the run; the window at hand is finished and kept.
        on_metrics: called with each window's metrics, in order.

    Raises:
        ConfigError: nothing can listen at `training.metrics_port`; there are no plans to repeat, or
            this run has others; the checkpoint's vectors are of another encoder.
        OffsetGap: retention deleted what was not learned; what was learned before it is kept.
        LogError: the log does not answer or its topics do not fit together.
        ray.train.TrainingFailedError: the workers failed more than `training.max_failures` times
            without learning a window in between.
        ray.exceptions.RayActorError: the trainer's controller died again and again in vain.
    """
    stop = stop or threading.Event()
    if bounded and config.encoder.learns and not config.training.patience:
        config = replace(config, training=replace(config.training, publish="end"))
    if plans is not None:
        plans = _storage(plans)  # the planner has another working folder
        check_plans(plans)
    with open_log(config.log) as log:
        create_standard_topics(log, config.partitions)
        end = {topic: log.latest(topic) for topic in LEARNED_TOPICS} if bounded else None
    check_encoder(config, checkpoint)
    with Recorder(config) as recorder:
        connect()
        from ray_rec.training.worker import WorkerSetup  # after `connect`: reads Ray's settings

        planner, owner = start_actors(config, end, plans)
        tally = _Tally([recorder.take, *([on_metrics] if on_metrics else [])])
        try:
            _fit(WorkerSetup(config, planner, owner, checkpoint), stop, tally)
        finally:
            tally.take(ray.get(planner.drain_metrics.remote()))
            for actor in (planner, owner):
                ray.kill(actor)
    current = Registry(config.registry).current()
    return StreamReport(
        tally.windows, tally.records, current.version if current else None, tally.last
    )


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster of RAY_ADDRESS (set in a Ray job), or start one of this process's own."""
    # Read when a run starts; the default of 2 s would cost every window that long.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if not ray.is_initialized():
        with signals_kept():  # Ray takes SIGTERM for itself
            # "local": left to itself Ray joins what `ray start` left behind on this machine, and
            # waits for ever where that has died.
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "local"),
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
            )


class _Tally:
    """Counts windows as their metrics arrive."""

    def __init__(self, listeners: Sequence[OnMetrics]) -> None:
        self.windows, self.records, self.last = 0, 0, dict[str, Any]()
        self._listeners = listeners

    def take(self, metrics: list[dict[str, Any]]) -> None:
        for window in metrics:
            self.windows += 1
            self.records += window["records"]
            self.last = window
            for listener in self._listeners:
                listener(window)


def _fit(setup: "WorkerSetup", stop: threading.Event, tally: _Tally) -> None:
    """Run the trainer in a thread of its own, so that this one can hear `stop`."""
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            _fit_while_it_moves(setup, tally)
        except BaseException as error:  # handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=fit, name="ray-train")
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.1)
        tally.take(ray.get(setup.planner.drain_metrics.remote()))
        for warning in ray.get(setup.planner.drain_warnings.remote()):
            _log.warning("%s", warning)
        if stop.is_set():  # told again and again: a planner that was rebuilt does not know
            ray.get(setup.planner.stop.remote())
    if failure:
        raise failure[0]
    if (ended := ray.get(setup.planner.failure.remote())) is not None:
        raise ended


def _fit_while_it_moves(setup: "WorkerSetup", tally: _Tally) -> None:
    """Run the trainer, and anew while each run got further before it failed for good.

    Its workers' failures are counted within a run. Its controller is one process, which ends a run
    whenever it dies: up to `max_failures` such ends in a row may come before a window is learned.
    """
    from ray.exceptions import RayActorError
    from ray.train import TrainingFailedError

    in_vain = 0
    while True:
        before = tally.windows
        try:
            _trainer(setup).fit()
            return
        except (TrainingFailedError, RayActorError) as error:
            in_vain = in_vain + 1 if tally.windows == before else 0
            died = isinstance(error, RayActorError)
            if in_vain > (setup.config.training.max_failures if died else 0):
                raise
            _log.exception("the trainer failed; starting anew")


def _trainer(setup: "WorkerSetup") -> Any:
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRun
    from ray.train.torch import TorchTrainer

    from ray_rec.training.source import EveryRow, WindowSource, window_dataset
    from ray_rec.training.worker import train_loop

    config, training = setup.config, setup.config.training
    source = WindowSource(setup.planner, setup.owner, config.log)
    windows = window_dataset(source, training.num_workers, training.cpus_per_read)
    return TorchTrainer(
        train_loop,
        train_loop_config={"setup": setup},
        scaling_config=ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=training.use_gpu,
            resources_per_worker={"CPU": training.cpus_per_worker},
        ),
        datasets={"windows": windows},
        dataset_config=EveryRow(),
        torch_config=process_group(training),
        run_config=TrainRun(
            name="stream",
            storage_path=_storage(f"{config.state_dir}/train"),
            failure_config=FailureConfig(max_failures=training.max_failures),
        ),
    )


def process_group(training: TrainingConfig) -> "TorchConfig":
    """Return the workers' process group: gloo for what is on the CPU, NCCL for what is on GPUs.

    Workers exchange both (`Workers`). Left to itself Ray takes NCCL alone where there are GPUs.
    """
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="cpu:gloo,cuda:nccl" if training.use_gpu else "gloo")


def _storage(url: str) -> str:
    """Return a URI or an absolute path: Ray's processes have other working folders."""
    return url if "://" in url else str(Path(url).resolve())


def latest_offsets(config: RunConfig) -> dict[str, Offsets]:
    """Return the next offset to be written of every learned topic."""
    with open_log(config.log) as log:
        return {topic: log.latest(topic) for topic in LEARNED_TOPICS}
