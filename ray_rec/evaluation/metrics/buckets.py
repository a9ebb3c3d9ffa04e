"""Targets by how often their item had been taken before: never, rarely, now and then, often."""

import numpy as np

from ray_rec.features.arrays import AnyArray, Int64

BUCKETS = ("0", "1-5", "6-20", ">20")
_MOST = np.array([0, 5, 20])


def bucket(seen: AnyArray) -> Int64:
    """Return the place in `BUCKETS` of each count [T] of earlier takings.

    >>> bucket(np.array([0, 1, 5, 6, 20, 21])).tolist()
    [0, 1, 1, 2, 2, 3]
    """
    return np.searchsorted(_MOST, seen)
