"""Writes answers to the topic `exposures`, in the background and at least once."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from ray_rec.errors import LogError
from ray_rec.events import EXPOSURES, Exposure, Record, encode, key_of
from ray_rec.log import EventLog

_BATCH = 500
_log = logging.getLogger(__name__)


class ExposureWriter:
    """A bounded queue and a thread that appends what is in it, in batches.

    While the log is away the thread tries again, for as long as it takes, and answers go on; when
    the queue is full an answer waits up to `full_wait_s` for room, and then goes out unwritten:
    `num_lost` counts those and an error is logged. `close` writes what is left.
    """

    def __init__(
        self, log: EventLog, capacity: int, full_wait_s: float = 0.05, retry_s: float = 0.25
    ) -> None:
        self._event_log = log
        self._queue: queue.Queue[Exposure] = queue.Queue(capacity)
        self._full_wait_s = full_wait_s
        self._retry_s = retry_s
        self._unwritten = 0
        self.num_written = 0
        self.num_lost = 0
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Answers given whose exposure is not on the log yet."""
        return self._queue.qsize() + self._unwritten

    def put(self, exposure: Exposure) -> bool:
        """Queue one exposure; False (and counted) when the queue stayed full."""
        try:
            self._queue.put_nowait(exposure)
            return True
        except queue.Full:
            pass
        try:
            self._queue.put(exposure, timeout=self._full_wait_s)
            return True
        except queue.Full:
            self.num_lost += 1
            _log.error(
                "exposure %s is lost: %d wait and the log takes none",
                exposure.request_id,
                self.num_waiting,
            )
            return False

    def close(self, timeout_s: float = 10.0) -> int:
        """Write what is left, for at most `timeout_s`; return how many could not be written."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s + 1.0)
        if self.num_waiting:
            _log.error("%d exposures were not written: the log takes none", self.num_waiting)
        return self.num_waiting

    def _run(self) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            batch = self._take()
            if batch and not self._append(batch):
                return

    def _take(self) -> list[Exposure]:
        """Return what is queued, after at most 50 ms."""
        batch: list[Exposure] = []
        try:
            batch.append(self._queue.get(timeout=0.05))
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        self._unwritten = len(batch)
        return batch

    def _append(self, batch: list[Exposure]) -> bool:
        """Append until it is durable; False when closing and out of time."""
        records = [Record(key_of(EXPOSURES, e), encode(e), e.ts) for e in batch]
        while not self._try(lambda: self._event_log.append(EXPOSURES, records)):
            if self._closing.wait(self._retry_s) and time.monotonic() > self._deadline:
                return False
        self.num_written += len(batch)
        self._unwritten = 0
        return True

    def _try(self, append: Callable[[], None]) -> bool:
        try:
            append()
        except LogError as error:
            _log.warning("exposures wait: %s", error)
            return False
        return True
