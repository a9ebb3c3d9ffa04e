"""Event files for TensorBoard."""

import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class TensorBoard:
    """Writes what it is told; windows that are learned again hide what was written of them before.

    Args:
        folder: a local one; it is made with the first window.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: EventsWriter | None = None
        self._written: int | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the window."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Its own name is the second and the host: two runs would share a file.
            self._file = EventsWriter(str(self._folder / "events"), f".{uuid.uuid4().hex[:8]}")
        if self._written is None or step < self._written:
            start = SessionLog(status=SessionLog.START)
            self._file.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        values = [Summary.Value(tag=path, simple_value=value) for path, value in metrics.items()]
        self._file.write_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        )
        self._file.flush()
        self._written = step

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
