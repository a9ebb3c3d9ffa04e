"""What retention deleted before it was learned: an error that says how to go on, or counted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ray_rec.errors import OffsetGap
from ray_rec.log.base import Offsets, Ranges, gap
from ray_rec.log.window import Window

OnGap = Literal["fail", "skip"]

Lost = dict[str, Offsets]
"""Topic to partition to a number of records."""


def pass_over(ranges: Ranges, first: Mapping[str, Offsets], on_gap: OnGap) -> tuple[Ranges, Lost]:
    """Return the ranges from the first offsets that are left, and how many records are lost.

    An empty range loses nothing: what comes after it belongs to a later window.

    Raises:
        OffsetGap: something is lost, and `on_gap` is "fail".
    """
    kept: Ranges = {}
    lost: Lost = {}
    for topic, spans in ranges.items():
        kept[topic] = {}
        for partition, (start, end) in spans.items():
            begin = min(max(start, first.get(topic, {}).get(partition, 0)), end)
            if begin > start:
                if on_gap == "fail":
                    raise OffsetGap(
                        f"{gap(topic, partition, start, begin)}; or go on after them with "
                        "--on-gap skip (training.on_gap), which counts them as lost"
                    )
                lost.setdefault(topic, {})[partition] = begin - start
            kept[topic][partition] = (begin, end)
    return kept, lost


def mended(window: Window, first: Mapping[str, Offsets], on_gap: OnGap) -> Window:
    """Return `window` without what was deleted since it was decided.

    Raises:
        OffsetGap: something was, and `on_gap` is "fail".
    """
    ranges, lost = pass_over(window.ranges, first, on_gap)
    for topic, parts in window.lost.items():
        for partition, count in parts.items():
            mine = lost.setdefault(topic, {})
            mine[partition] = mine.get(partition, 0) + count
    return replace(window, ranges=ranges, lost=lost)


def num_lost(window: Window) -> int:
    """Return how many records `window` passed over."""
    return sum(count for parts in window.lost.values() for count in parts.values())
