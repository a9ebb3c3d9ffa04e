"""`ray-rec status` for a person: the whole status in one screen."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ray_rec.training.status import LogStatus, ModelStatus, Status, StreamStatus

STALE_S = 10.0
"""A running stream tells something every second."""

_UNKNOWN = "not told"
_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def print_status(status: "Status") -> None:
    """Print it to stdout; without colours where that is no terminal."""
    sections = [
        _section("log", _log(status.log)),
        _section("stream", _stream(status.stream)),
        _section("model", _model(status.model)),
        _section("state", [("goes on with", _checkpoint(status.checkpoint))]),
    ]
    Console().print(Group(*sections), highlight=False)


Rows = list[tuple[str, str]]


def _section(name: str, rows: Rows) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=8, style="bold")
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for place, (label, value) in enumerate(rows):
        table.add_row(name if place == 0 else "", label, Text(value))
    return table


def _log(log: "LogStatus") -> Rows:
    rows = []
    for topic, behind in log.lag.items():
        parts = ", ".join(f"{partition}: {n:,}" for partition, n in sorted(behind.items()))
        rows.append((f"lag of {topic}", f"{sum(behind.values()):,}  ({parts})"))
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in log.reasons.items())
    rows.append(("dead letters", f"{log.dead_letters:,}" + (f"  ({reasons})" if reasons else "")))
    return rows


def _stream(stream: "StreamStatus | None") -> Rows:
    if stream is None:
        return [("told", "nothing yet; `ray-rec stream` learns from the log")]
    told = f"{_duration(stream.age_s)} ago"
    if stream.age_s > STALE_S:
        told += ": no stream is running, or it cannot write"
    behind = stream.watermark_behind_s
    rates = {"events": stream.events_per_second, "examples": stream.examples_per_second}
    late = {**stream.late, "outcomes": stream.late_outcomes}
    return [
        ("told", told),
        ("window", str(stream.window)),
        ("watermark", _UNKNOWN if behind is None else f"{_duration(behind)} behind now"),
        (
            "rates",
            _joined(f"{name} {rate:,.1f}/s" for name, rate in rates.items() if rate is not None),
        ),
        ("window time", _joined(f"{stage} {s:.3f} s" for stage, s in stream.stage_s.items())),
        ("duplicates", _joined(f"{topic} {n:,}" for topic, n in stream.duplicates.items())),
        ("late", _joined(f"{what} {n:,}" for what, n in late.items())),
        ("not learned", f"records lost {stream.lost:,}, examples set aside {stream.set_aside:,}"),
    ]


def _model(model: "ModelStatus") -> Rows:
    rows = [("in service", "none")]
    if model.version is not None and model.age_s is not None:
        held = ", held by a rollback until `ray-rec models release`" if model.held else ""
        rows = [("in service", f"version {model.version}, {_duration(model.age_s)} old{held}")]
    if model.newest is not None:
        gate = "passed the gate" if model.newest_passed else "failed the gate"
        rows.append(("newest", f"version {model.newest}, {gate}: {model.newest_reason}"))
        rows.append(("items", f"{model.items:,}"))
    for task, measures in model.quality.items():
        rows.append((task, _joined(f"{name} {value:.4g}" for name, value in measures.items())))
    return rows


def _checkpoint(window: int | None) -> str:
    return "no checkpoint yet" if window is None else f"window {window}"


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts) or _UNKNOWN


def _duration(seconds: float) -> str:
    """Tell a time in the two largest units that it fills.

    >>> [_duration(s) for s in (0.25, 75.0, 7_260.0, 200_000.0)]
    ['0.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    unit, size, lesser, part = next(row for row in _UNITS if whole >= row[1])
    return f"{whole // size} {unit} {whole % size // part} {lesser}"
