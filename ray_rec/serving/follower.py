"""Keeps an engine's state level with the log: a bounded catch-up, then following."""

import logging
import threading
import time
from collections.abc import Mapping

import pyarrow as pa

from ray_rec.errors import LogError, OffsetGap
from ray_rec.events import CONTROLS, EVENTS, ITEMS, decode
from ray_rec.log import EventLog, Offsets
from ray_rec.serving.engine import Engine
from ray_rec.serving.metrics import Metrics

TOPICS = (ITEMS, CONTROLS, EVENTS)
"""Exposures are followed by learning alone: no answer depends on what was shown."""

_log = logging.getLogger(__name__)


class LogFollower:
    """A thread that feeds one engine; start it once, `stop` ends it.

    `failure` is set, and following ends, when retention has deleted what comes next: the replica
    must then be replaced by one that starts from a newer snapshot. Other errors are tried again.
    """

    def __init__(
        self,
        log: EventLog,
        engine: Engine,
        offsets: Mapping[str, Mapping[int, int]],
        metrics: Metrics,
        poll_s: float,
        retry_s: float = 0.5,
    ) -> None:
        self._event_log = log
        self._engine = engine
        self._metrics = metrics
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._at: dict[str, Offsets] = {topic: dict(offsets.get(topic, {})) for topic in TOPICS}
        self._moved = threading.Condition()
        self._stop = threading.Event()
        self.caught_up = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin to catch up and follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it finishes the batch at hand."""
        self._stop.set()
        self._thread.join(10.0)

    def positions(self) -> dict[str, Offsets]:
        """Return the next offset to be applied, by topic and partition."""
        with self._moved:
            return {topic: dict(at) for topic, at in self._at.items()}

    def wait_for(self, topic: str, offsets: Offsets, timeout_s: float) -> bool:
        """Wait until everything before these offsets is applied; False when time ran out."""

        def reached() -> bool:
            at = self._at[topic]
            return all(at.get(partition, 0) >= end for partition, end in offsets.items())

        with self._moved:
            return self._moved.wait_for(reached, timeout_s)

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until the log as it was at the start is applied."""
        with self._moved:
            return self._moved.wait_for(lambda: self.caught_up or bool(self.failure), timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._catch_up()
                for topic, raw in self._event_log.follow(
                    self.positions(), self._stop, self._poll_s
                ):
                    self._apply(topic, raw)
            except OffsetGap as error:
                self._fail(str(error))
                return
            except LogError as error:
                self._metrics.follower_errors.labels("log").inc()
                _log.warning("the log cannot be followed, trying again: %s", error)
                self._stop.wait(self._retry_s)

    def _catch_up(self) -> None:
        """Apply all that is on the log now; bounded reads pass the holes that markers leave."""
        started = time.monotonic()
        for topic in TOPICS:
            first = self._event_log.earliest(topic)
            at = self.positions()[topic]
            ends = self._event_log.latest(topic)
            ranges = {p: (at.get(p, first.get(p, 0)), end) for p, end in ends.items()}
            for raw in self._event_log.read(topic, ranges):
                self._apply(topic, raw)
                if self._stop.is_set():
                    return
            self._advance(topic, ends)
        _log.info("caught up with the log in %.2f s", time.monotonic() - started)
        with self._moved:
            self.caught_up = True
            self._moved.notify_all()

    def _apply(self, topic: str, raw: pa.Table) -> None:
        decoded = decode(topic, raw)
        for reason in decoded.dead.column("reason").to_pylist():
            self._metrics.dead_letters.labels(topic, str(reason)).inc()
        self._engine.update({topic: decoded.table})
        ends = raw.group_by("partition").aggregate([("offset", "max")]).to_pylist()
        self._advance(topic, {row["partition"]: row["offset_max"] + 1 for row in ends})

    def _advance(self, topic: str, ends: Offsets) -> None:
        with self._moved:
            at = self._at[topic]
            for partition, end in ends.items():
                at[partition] = max(at.get(partition, 0), end)
            self._moved.notify_all()

    def _fail(self, reason: str) -> None:
        _log.error("following ends: %s", reason)
        with self._moved:
            self.failure = reason
            self._moved.notify_all()
