"""Tells trackers once a second how the stream stands, from a thread that can hold nothing up."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ray_rec.config import RunConfig
from ray_rec.log.base import open_log
from ray_rec.log.standing import lag
from ray_rec.registry import Manifest, Registry
from ray_rec.registry.store import Store
from ray_rec.tracking import Tracker
from ray_rec.tracking.account import Account
from ray_rec.tracking.last import Last
from ray_rec.tracking.mlflow import MLflow
from ray_rec.tracking.paced import Paced
from ray_rec.tracking.prometheus import Prometheus
from ray_rec.tracking.tensorboard import TensorBoard
from ray_rec.tracking.wandb import WandB
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.plans import PlanStore

EVERY_S = 1.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Recorder:
    """Takes each window's metrics; adds what passes without windows: lag and the served version.

    Before the first window of a run it tells of the newest version. A log, store or tracker that
    fails is a warning, once until it works again, and what it would have told is left out.

    Args:
        config: the run's configuration.
        trackers: instead of those of the configuration.

    Raises:
        ConfigError: nothing can listen at `training.metrics_port`.
    """

    def __init__(self, config: RunConfig, trackers: Sequence[Tracker] | None = None) -> None:
        self._registry = Registry(config.registry, create=True)
        self._newest = newest_version(self._registry)
        self._plans = f"{config.state_dir}/plans"
        self._trackers = _trackers(config) if trackers is None else trackers
        self._log = open_log(config.log)
        self._account, self._lock = Account(), threading.Lock()
        self._window = self._newest.windows[1] if self._newest else None
        self._served: Manifest | None = None
        self._failing: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        """Begin to tell."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell the end, and close the trackers."""
        self._stop.set()
        self._thread.join()
        self._tell()
        for tracker in self._trackers:
            self._attempt(f"closing {type(tracker).__name__}", tracker.close)
        self._log.close()

    def take(self, window: Mapping[str, Any]) -> None:
        """Take the flat metrics of a window that was learned just now."""
        with self._lock:
            self._account.add(window)
            self._window = int(window["window"])

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            window, metrics = self._window, self._account.read()
        if window is None:
            return
        metrics |= self._attempt("the log's end", partial(self._lag, window)) or {}
        metrics |= self._attempt("the version in service", self._service) or {}
        for tracker in self._trackers:
            self._attempt(type(tracker).__name__, partial(tracker.log, window, metrics))

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        try:
            done = act()
        except Exception as error:  # whatever a client raises: learning goes on
            if what not in self._failing:
                _log.warning("%s fails, metrics go on without it: %s", what, error)
            self._failing.add(what)
            return None
        self._failing.discard(what)
        return done

    def _lag(self, window: int) -> dict[str, float]:
        plan = PlanStore(self._plans).get(window)  # a store remembers, and a plan may be amended
        known = self._newest.offsets if self._newest else {}
        learned = known if plan is None else plan.ends()
        behind = lag(self._log, LEARNED_TOPICS, learned)
        return {f"lag_records/{t}/{p}": n for t, parts in behind.items() for p, n in parts.items()}

    def _service(self) -> dict[str, float]:
        current = self._registry.current()
        if current is None:
            return {}
        if self._served is None or self._served.version != current.version:
            self._served = self._registry.manifest(current.version)
        age_s = time.time() - self._served.created_at / 1000
        return {"model_version": current.version, "model_version_age_seconds": age_s}


def newest_version(registry: Registry) -> Manifest | None:
    """Return the manifest of the newest version, in service or not; None before the first."""
    versions = registry.versions()
    return registry.manifest(versions[-1]) if versions else None


def _trackers(config: RunConfig) -> list[Tracker]:
    training, trackers = config.training, list[Tracker]([Last(config.state_dir)])
    if training.metrics_port:
        trackers.append(Prometheus(training.metrics_host, training.metrics_port))
    local = Store(config.state_dir).local
    folder = Path(config.state_dir.removeprefix("file://")) if local else None
    for name in dict.fromkeys(training.trackers):
        tracker = _MAKERS[name](config, folder)
        if tracker is None:
            _log.warning("no files for %s: state_dir %s is not local", name, config.state_dir)
        else:
            trackers.append(Paced(tracker))
    return trackers


def _tensorboard(_: RunConfig, folder: Path | None) -> Tracker | None:
    return None if folder is None else TensorBoard(folder / "tensorboard")


def _wandb(config: RunConfig, folder: Path | None) -> Tracker | None:
    return WandB(folder, config.training.experiment, config.to_dict())


def _mlflow(config: RunConfig, folder: Path | None) -> Tracker | None:
    uri = config.training.mlflow_uri
    if not uri and folder is not None:
        uri = f"sqlite:///{folder}/mlflow.db"
    return MLflow(uri, config.training.experiment, config.to_dict()) if uri else None


_MAKERS: dict[str, Callable[[RunConfig, Path | None], Tracker | None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
