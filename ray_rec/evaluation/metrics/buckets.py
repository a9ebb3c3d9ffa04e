"""Targets by how often their item had been taken, as it was learned and when it is asked for; and
by how much their user had done."""

import numpy as np

from ray_rec.features.arrays import AnyArray, Int64

BUCKETS = ("0", "1-5", "6-20", ">20")
"""How often an item had been learned, or a user had done anything: never, rarely, now and then,
often."""

STAGES = ("0", "1", "2", "3-5", "6-10", "11-20", ">20")
"""How far an item has warmed up: the events that it had collected when it was asked for."""

_MOST = np.array([0, 5, 20])
_MOST_BY_STAGE = np.array([0, 1, 2, 5, 10, 20])


def bucket(seen: AnyArray) -> Int64:
    """Return the place in `BUCKETS` of each count [T] of what came earlier.

    >>> bucket(np.array([0, 1, 5, 6, 20, 21])).tolist()
    [0, 1, 1, 2, 2, 3]
    """
    return np.searchsorted(_MOST, seen)


def stage(collected: AnyArray) -> Int64:
    """Return the place in `STAGES` of each count [T] of events collected.

    >>> stage(np.array([0, 1, 2, 3, 5, 6, 11, 21])).tolist()
    [0, 1, 2, 3, 3, 4, 5, 6]
    """
    return np.searchsorted(_MOST_BY_STAGE, collected)
