"""Which gathered windows each window of several passes learns: planned, as all that a window does.

A pass goes through all of them once, in an order drawn anew; windows of the log are small pieces of
time, so that each window of a pass learns a few of them together, as many as memory is allowed for.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ray_rec.features.arrays import mix
from ray_rec.log.window import Passes


def onwards(
    passes: Passes, number: int, most_records: int, records_of: Callable[[int], int]
) -> Passes:
    """Return how far the passes have come with window `number`, the next of those that learn.

    Args:
        passes: as of the window before.
        number: of the window.
        most_records: that one window learns, about.
        records_of: how many records a gathered window covers.
    """
    if passes.at == 0:
        counts = [records_of(gathered) for gathered in range(passes.first, number)]
        a_pass = min(len(counts), max(1, math.ceil(sum(counts) / most_records)))
        passes = replace(passes, until=number, of=passes.times * a_pass)
    return replace(passes, at=passes.at + 1)


def repeated(passes: Passes) -> tuple[int, ...]:
    """Return the gathered windows that the window at this place of the passes learns.

    >>> [repeated(Passes(times=2, first=3, until=8, at=at, of=4)) for at in (1, 2, 3, 4)]
    [(3, 4, 7), (5, 6), (4, 5, 6), (3, 7)]
    """
    number, part = divmod(passes.at - 1, passes.of // passes.times)
    windows = np.arange(passes.first, passes.until)
    order = np.argsort(mix(np.full(len(windows), number), windows), kind="stable")
    parts = np.array_split(windows[order], passes.of // passes.times)
    return tuple(sorted(parts[part].tolist()))
