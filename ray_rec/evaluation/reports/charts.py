"""Inline SVG charts for reports: lines, stages, bars, calibration, dots; no scripts, no assets."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from math import isfinite

COLOURS = (
    "#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#64748b",
    "#0891b2", "#84cc16", "#db2777", "#92400e", "#6366f1", "#0f766e",
)  # fmt: skip

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_NAMES, _BAR, _ROW = 150, 340, 20  # of bars: where they begin, how long they get, how far apart

Points = Sequence[tuple[float, float]]


class _Frame:
    """Maps values to the pixels inside the axes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (value - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, x_ticks: Sequence[float], names: Sequence[str] = ()) -> list[str]:
        low, high = self._y
        left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = [_text((left + right) / 2, _HEIGHT - 4, "middle", escape(x_label))]
        for step in range(5):
            value = low + (high - low) * step / 4
            at = f"{self.y(value):.1f}"
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
            parts.append(_text(left - 6, self.y(value) + 4, "end", f"{value:.3g}"))
        texts = [escape(name) for name in names] or [f"{x:.3g}" for x in x_ticks]
        marks = zip(x_ticks, texts, strict=True)
        return parts + [_text(self.x(x), bottom + 15, "middle", text) for x, text in marks]


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def lines(title: str, x_label: str, series: Mapping[str, Points], zero: bool = True) -> str:
    """Return a figure with a line and dots for each named series of (x, y).

    The axis of y begins at 0, or at the least y below it; without `zero` at the least, as suits
    losses.

    >>> ">-0.1<" in lines("above popularity", "window", {"hybrid": [(1, -0.1), (2, 0.2)]})
    True

    >>> "polyline" in lines("HR@10", "window", {"popularity": [(1, 0.1), (2, 0.2)]})
    True
    """
    known = {name: [p for p in points if isfinite(p[1])] for name, points in series.items()}
    every = [point for points in known.values() for point in points]
    if not every:
        return ""
    xs = sorted({x for x, _ in every})
    least, most = min(y for _, y in every), max(y for _, y in every)
    ends = (least, most + 0.05 * (most - least))
    if zero:
        least, most = min(0.0, least), max(0.0, most)
        ends = (least, most * 1.05 or float(least == 0))
    frame = _Frame((xs[0], xs[-1]), ends)
    return _figure(title, frame, x_label, xs[:: 1 + len(xs) // 12], known)


def stages(
    title: str,
    x_label: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float] | None]],
) -> str:
    """Return a figure with a line over named stages, and whiskers of one standard error.

    Args:
        title: of the figure.
        x_label: what the stages are of.
        names: of the stages, evenly apart.
        series: by name a (value, error) for each stage; None, or what is not finite, is not drawn.
    """
    known = {
        name: [(float(x), *e) for x, e in enumerate(row) if e is not None and isfinite(sum(e))]
        for name, row in series.items()
    }
    top = max((y + error for row in known.values() for _, y, error in row), default=0.0)
    if not any(known.values()):
        return ""
    frame = _Frame((-0.5, len(names) - 0.5), (0.0, top * 1.05 or 1.0))
    whiskers = [
        f'<line x1="{frame.x(x):.1f}" x2="{frame.x(x):.1f}" y1="{frame.y(max(0, y - error)):.1f}" '
        f'y2="{frame.y(y + error):.1f}" stroke="{colour}" opacity=".5"/>'
        for row, colour in zip(known.values(), cycle(COLOURS), strict=False)
        for x, y, error in row
    ]
    points = {name: [(x, y) for x, y, _ in row] for name, row in known.items()}
    return _figure(title, frame, x_label, range(len(names)), points, "".join(whiskers), names=names)


def bars(title: str, values: Mapping[str, Mapping[str, float]]) -> str:
    """Return a figure with a bar for each name, from 0, and a whisker from `low` to `high`.

    Args:
        title: of the figure.
        values: by name `value`, `low` and `high`; what is not finite is not drawn.
    """
    ends = [(found["value"], found["low"], found["high"]) for found in values.values()]
    most = max((end for row in ends for end in row if _known(end)), default=0.0) or 1.0
    height = _ROW * len(ends) + 8
    parts = []
    for place, (name, (value, low, high)) in enumerate(zip(values, ends, strict=True)):
        y = 4 + _ROW * place + _ROW / 2
        at, start, end = (
            _NAMES + (x if _known(x) else 0) / most * _BAR for x in (value, low, high)
        )
        parts.append(_text(_NAMES - 6, y + 4, "end", escape(name)))
        parts.append(
            f'<rect x="{_NAMES}" y="{y - 6:.1f}" width="{max(0.0, at - _NAMES):.1f}" height="12" '
            f'fill="{COLOURS[0]}" opacity=".75"/>'
        )
        if _known(low) and _known(high):
            parts.append(
                f'<line class="whisker" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>'
            )
        parts.append(_text(_WIDTH - 4, y + 4, "end", f"{value:.4f}" if _known(value) else "-"))
    return _framed(title, height, "".join(parts), "")


def _known(value: float | None) -> bool:
    return value is not None and isfinite(value)


def reliability(title: str, series: Mapping[str, Points]) -> str:
    """Return a figure of observed against predicted rates, with the diagonal of a perfect one."""
    if not any(series.values()):
        return ""
    ticks = (0, 0.25, 0.5, 0.75, 1)
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    diagonal = (
        f'<line class="ideal" x1="{frame.x(0)}" y1="{frame.y(0)}" '
        f'x2="{frame.x(1)}" y2="{frame.y(1)}"/>'
    )
    return _figure(title, frame, "predicted", ticks, series, diagonal)


def dots(title: str, x_label: str, points: Points) -> str:
    """Return a figure with a dot for each (x, y); y begins at 0.

    >>> dots("HR@10", "rate", [(1, 0.1), (2, 0.2)]).count("<circle")
    2
    """
    known = sorted(point for point in points if isfinite(point[1]))
    if not known:
        return ""
    low, high = known[0][0], known[-1][0]
    frame = _Frame((low, high), (0.0, max(y for _, y in known) * 1.05 or 1.0))
    ticks = [low + (high - low) * step / 4 for step in range(5)] if high > low else [low]
    return _figure(title, frame, x_label, ticks, {"trial": known}, joined=False)


def _figure(
    title: str,
    frame: _Frame,
    x_label: str,
    ticks: Sequence[float],
    series: Mapping[str, Points],
    extra: str = "",
    joined: bool = True,
    names: Sequence[str] = (),
) -> str:
    parts = frame.axes(x_label, ticks, names)
    keys = []
    for (name, points), colour in zip(series.items(), cycle(COLOURS), strict=False):
        places = [(frame.x(x), frame.y(y)) for x, y in points]
        if joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            line = f'fill="none" stroke="{colour}" stroke-width="2"'
            parts.append(f'<polyline points="{path}" {line}/>')
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{colour}">'
            f"<title>{escape(name)}: {y:.4g} at {x:.4g}</title></circle>"
            for (px, py), (x, y) in zip(places, points, strict=True)
        ]
        keys.append(f'<span><i style="background:{colour}"></i>{escape(name)}</span>')
    drawing = "".join(parts) + extra
    return _framed(title, _HEIGHT, drawing, f'<div class="key">{"".join(keys)}</div>')


def _framed(title: str, height: float, drawing: str, below: str) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">{drawing}'
        f"</svg>{below}</figure>"
    )
