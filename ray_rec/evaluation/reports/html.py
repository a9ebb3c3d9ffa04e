"""The pieces of which pages are made: a page, tables, numbers with what they may be off by."""

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite
from typing import Any

Plain = dict[str, Any]

DASH = "&ndash;"

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:15px/1.5 system-ui,sans-serif;max-width:1160px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin-top:2.2rem}
p.about{max-width:72ch}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
tr.model{font-weight:600;background:var(--soft)}
small{opacity:.7;font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(460px,100%),1fr));gap:1rem}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:.6rem}
figcaption{font-weight:600}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}
svg text{fill:currentColor}
.whisker{stroke:currentColor;stroke-width:1.5}
.grid{stroke:var(--line)}.ideal{stroke:#888;stroke-dasharray:4}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
pre{overflow-x:auto;background:var(--soft);padding:.8rem;border-radius:8px}
"""


def page(title: str, sections: Iterable[str]) -> str:
    """Return a page: self-contained, readable without scripts or a network."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>ray_rec: {title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{''.join(sections)}</body></html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], model: str) -> str:
    """Return a table; heads and cells are HTML already, row names are not."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(
        f"<tr{' class=model' if name == model else ''}><td>{escape(name)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def with_error(estimate: Plain) -> str:
    """Return a value and its standard error."""
    return f"{number(estimate['value'])} <small>±{number(estimate['error'])}</small>"


def with_interval(estimate: Plain) -> str:
    """Return a difference and its interval, both with their signs."""
    low, high = (number(estimate[end], signed=True) for end in ("low", "high"))
    return f"{number(estimate['value'], signed=True)} <small>[{low}, {high}]</small>"


def number(value: float | None, signed: bool = False) -> str:
    """Return four digits; a dash for what is no number (null, once it was stored)."""
    if value is None or not isfinite(value):
        return DASH
    return f"{value:+.4f}" if signed else f"{value:.4f}"
