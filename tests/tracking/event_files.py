"""Event files, read as TensorBoard reads them."""

import struct
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def events_of(folder: Path) -> list[Event]:
    """Read all event files, oldest first (TFRecord: length, its checksum, data, its checksum)."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            (length,) = struct.unpack_from("<Q", raw, at)
            events.append(Event.FromString(raw[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return events


def points(folder: Path) -> list[tuple[int, Mapping[str, float]]]:
    """Return what would be drawn: points at or after a new start's step are hidden by it."""
    drawn: list[tuple[int, Mapping[str, float]]] = []
    for event in events_of(folder):
        if event.session_log.status == SessionLog.START:
            drawn = [point for point in drawn if point[0] < event.step]
        if event.summary.value:
            drawn.append((event.step, {v.tag: v.simple_value for v in event.summary.value}))
    return drawn
