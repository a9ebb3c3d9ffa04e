"""Event files for TensorBoard."""

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class TensorBoard:
    """Writes at most one window in `every_s` seconds, because a stream has no end; the last always.

    Windows that are learned again hide what was written of them before.

    Args:
        folder: a local one; it is made with the first window.
        every_s: seconds between two points.
        clock: seconds that never go back.
    """

    def __init__(
        self, folder: Path, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._every_s, self._clock = folder, every_s, clock
        self._file: EventsWriter | None = None
        self._written: int | None = None
        self._written_at = -float("inf")
        self._waiting: tuple[int, dict[str, float]] | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the window, or keep it until the next may be written."""
        if step == self._written:
            return
        self._waiting = step, dict(metrics)
        if self._clock() - self._written_at >= self._every_s:
            self._write()

    def close(self) -> None:
        """Write the last window."""
        if self._waiting is not None:
            self._write()
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        if self._waiting is None:
            return
        step, metrics = self._waiting
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Its own name is the second and the host: two runs would share a file.
            self._file = EventsWriter(str(self._folder / "events"), f".{uuid.uuid4().hex[:8]}")
        if self._written is None or step < self._written:
            start = SessionLog(status=SessionLog.START)
            self._put(Event(wall_time=time.time(), step=step, session_log=start))
        values = [Summary.Value(tag=path, simple_value=value) for path, value in metrics.items()]
        self._put(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._file.flush()
        self._waiting, self._written, self._written_at = None, step, self._clock()

    def _put(self, event: Event) -> None:
        if self._file is not None:
            self._file.write_event(event)
