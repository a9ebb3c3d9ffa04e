"""One serving replica without Ray: an engine, kept level with the log and the registry."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import numpy.typing as npt

from ray_rec.errors import LogError, ModelError, RayRecError, VersionMissing
from ray_rec.events import Record
from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.log import EventLog
from ray_rec.registry import Manifest, Registry, Version
from ray_rec.serving.answers import Answer, Request
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.context import Encode, sought
from ray_rec.serving.engine import Engine
from ray_rec.serving.exposures import ExposureWriter
from ray_rec.serving.follower import LogFollower
from ray_rec.serving.metrics import Metrics

_TEXTS_POLL_S = 0.02
_TEXTS_AT_ONCE = 256
_log = logging.getLogger(__name__)


class Readiness(msgspec.Struct, frozen=True):
    """Whether answers may be asked for: a version is loaded and the log is caught up.

    `started_at` (ms) tells replicas apart; `snapshot` is the window whose state snapshot this one
    started from, None when it read the log from its beginning.
    """

    ready: bool
    version: int | None
    caught_up: bool
    reason: str
    snapshot: int | None
    started_at: int


class Replica:
    """Starts from the newest state snapshot, follows the log and the registry, writes exposures.

    Without `encode`, items that no version has learned have no vector and are not shown.
    """

    def __init__(
        self,
        log: EventLog,
        registry: Registry,
        features: FeatureConfig | None = None,
        serving: ServingConfig | None = None,
        encode: Encode | None = None,
    ) -> None:
        self.serving = serving or ServingConfig()
        self.metrics = Metrics()
        self._event_log = log
        self._registry = registry
        self._encode = encode
        self._loaded: Version | None = None
        features = features or FeatureConfig()
        snapshot = registry.latest_snapshot()
        self._snapshot = None if snapshot is None else snapshot.number
        self._started_at = self.now_ms()
        state = None if snapshot is None else FeatureState.restore(features, snapshot.segments)
        self.engine = Engine(features, self.serving, state)
        offsets = {} if snapshot is None else snapshot.offsets
        self._follower = LogFollower(log, self.engine, offsets, self.metrics, self.serving.poll_s)
        self._exposures = ExposureWriter(log, self.serving.exposure_queue)
        self.answering = ThreadPoolExecutor(self.serving.num_threads, "answering")
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow_registry, name="registry-follower", daemon=True),
            threading.Thread(target=self._encode_texts, name="cold-texts", daemon=True),
        ]

    def start(self, wait_s: float = 0.0) -> "Replica":
        """Begin to follow; return when ready, or after `wait_s`."""
        self._follower.start()
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + wait_s
        while not self.readiness().ready and time.monotonic() < deadline:
            time.sleep(0.02)
        return self

    def close(self) -> None:
        """Stop following and write the exposures that wait."""
        self.answering.shutdown()
        self._stop.set()
        self._follower.stop()
        for thread in self._threads:
            thread.join(10.0)
        self._exposures.close()

    def recommend(self, request: Request) -> Answer:
        """Answer a request and log what was shown.

        With `request.ts` the answer is hypothetical, shown to nobody, and not logged.
        """
        words = None
        if request.query and self._encode is not None:
            encoder = self.engine.manifest.encoder
            words = sought(request.query, encoder, self._encode, self.metrics)
        answer = self.engine.recommend(request, words)
        if request.ts is None:
            self._exposures.put(answer.exposure(request))
        return answer

    def append(self, topic: str, records: Sequence[Record]) -> bool:
        """Append records durably, then wait up to `written_wait_s` until this replica knows them.

        Returns whether it does; a LogError means that nothing may be taken as accepted.
        """
        self._event_log.append(topic, records)
        return self._follower.wait_for(
            topic, self._event_log.latest(topic), self.serving.written_wait_s
        )

    @staticmethod
    def now_ms() -> int:
        """Return the time in ms UTC."""
        return time.time_ns() // 1_000_000

    def readiness(self) -> Readiness:
        """Tell whether this replica may be asked, and why not."""
        version, caught_up = self.engine.version, self._follower.caught_up
        reason = ""
        if self._follower.failure:
            reason = self._follower.failure
        elif version is None:
            reason = "no model version is loaded yet"
        elif not caught_up:
            reason = "the log is not caught up yet"
        return Readiness(not reason, version, caught_up, reason, self._snapshot, self._started_at)

    def check_health(self) -> None:
        """Raise when this replica cannot go on and must be replaced."""
        if self._follower.failure:
            raise LogError(self._follower.failure)

    def manifest(self) -> Manifest:
        """Return the manifest of the version in service; NotReady when there is none."""
        return self.engine.manifest

    def metrics_text(self) -> str:
        """Return the metrics, with gauges as they are now."""
        metrics, engine = self.metrics, self.engine
        version = engine.version
        metrics.version.set(-1 if version is None else version)
        if version is not None:
            metrics.version_age.set((self.now_ms() - engine.manifest.created_at) / 1000)
        metrics.items.set(len(engine.catalogue))
        metrics.items_without_vector.set(engine.num_without_vector)
        metrics.exposures_waiting.set(self._exposures.num_waiting)
        metrics.exposures_written.set(self._exposures.num_written)
        metrics.exposures_lost.set(self._exposures.num_lost)
        try:
            for topic, at in self._follower.positions().items():
                for partition, end in self._event_log.latest(topic).items():
                    lag = end - at.get(partition, 0)
                    metrics.lag.labels(topic, str(partition)).set(max(0, lag))
        except LogError as error:
            metrics.follower_errors.labels("log").inc()
            _log.warning("the log does not tell its end: %s", error)
        return metrics.text()

    def _follow_registry(self) -> None:
        wait_s = self.serving.registry_poll_s
        while not self._stop.wait(0.0 if self.engine.version is None else wait_s):
            wait_s = self.serving.registry_poll_s
            try:
                self._swap_if_changed()
            except RayRecError as error:
                self.metrics.follower_errors.labels("registry").inc()
                _log.error("version %s stays in service: %s", self.engine.version, error)
                wait_s = min(10 * wait_s, 10.0)
            if self.engine.version is None:
                self._stop.wait(wait_s)

    def _swap_if_changed(self) -> None:
        current = self._registry.current()
        if current is None or current.version == self.engine.version:
            return
        started = time.monotonic()
        try:
            self._loaded = self._registry.load(current.version, have=self._loaded)
            self.engine.swap(self._loaded, self._cold_vectors(self._loaded))
        except VersionMissing:
            if self._registry.current() == current:
                raise
            return  # pruned between two reads; CURRENT has moved on
        self.metrics.swaps.inc()
        kind, seconds = self._loaded.manifest.kind, time.monotonic() - started
        _log.info("version %d (%s) serves after %.2f s", current.version, kind, seconds)

    def _cold_vectors(self, version: Version) -> dict[str, npt.NDArray[np.float32]]:
        """Return vectors by a version's encoder, where that changes, of items that it lacks.

        So they stay in answers; and an encoder that cannot be had keeps its version out.
        """
        encoder = version.manifest.encoder
        if self._encode is None or self.engine.version is None:
            return {}
        if self.engine.manifest.encoder == encoder:
            return {}
        texts = self.engine.cold_texts(version) or [""]
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        for at in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[at : at + _TEXTS_AT_ONCE]
            try:
                found = self._encode(part, encoder)
            except Exception as error:  # whatever a remote encoder raises
                raise ModelError(
                    f"version {version.manifest.version} has another encoder, which does not "
                    f"answer yet: {error}"
                ) from error
            vectors |= zip(part, found, strict=True)
        return vectors

    def _encode_texts(self) -> None:
        while not self._stop.wait(_TEXTS_POLL_S):
            if self.engine.version is None:
                continue
            encoder, texts = self.engine.manifest.encoder, self.engine.missing_texts(_TEXTS_AT_ONCE)
            vectors = np.zeros((0, 0), np.float32)
            if texts:
                if self._encode is None:
                    continue
                try:
                    vectors = self._encode(texts, encoder)
                except Exception as error:  # whatever a remote encoder raises: its texts wait
                    self.metrics.follower_errors.labels("encoder").inc()
                    _log.warning("%d texts wait for the encoder: %s", len(texts), error)
                    self._stop.wait(1.0)
                    continue
            self.engine.add_texts(texts, vectors, encoder)
