"""Items that are learned as though they were newer: ID dropout and simulated births.

ID dropout takes an item's own vector away; a birth puts the item back to some earlier moment, when
it was known by its text for the most part. So the network meets every weight between text and own
vector that an item goes through as it collects events, also for items that did so long ago.
"""

from dataclasses import replace

import numpy as np
import torch

from ray_rec.features.arrays import Bool, Int64, mix
from ray_rec.model.items import ItemSlice

_BIRTH = 1
"""Tells this draw from the others of a step and item."""


def with_own(rows: Int64, number: int, step: int, dropout: float) -> Bool:
    """Return which items [U] of a step keep their own vector; their hashes decide, as in `younger`.

    Args:
        rows: of the items in the catalogue, [U].
        number: of the window.
        step: of the window's steps.
        dropout: share of the items that lose it, from 0 to 1.
    """
    identity = (np.array([value], np.int64) for value in (number, step))
    kept: Bool = mix(*identity, rows) >= np.uint64(min(int(dropout * 2**64), 2**64 - 1))
    return kept


def younger(items: ItemSlice, rows: Int64, number: int, step: int, share: float) -> ItemSlice:
    """Return a step's items with about a `share` of them as after fewer events than they had.

    Of these the weight a = n/(n+k) of the own vector becomes u·a, with u uniform from 0 to 1: that
    of n' = u·n·k / (k + (1-u)·n) events. An item is drawn once a step, wherever it occurs, by a
    hash, so that all workers draw alike; 0 changes nothing.

    Args:
        items: of the step.
        rows: their rows in the catalogue, [U].
        number: of the window.
        step: of the window's steps.
        share: from 0 to 1.
    """
    if not share:
        return items
    identity = (np.array([value], np.int64) for value in (_BIRTH, number, step))
    drawn = (mix(*identity, rows) >> np.uint64(11)).astype(np.float64) / 2**53
    kept = torch.from_numpy(np.minimum(1.0, drawn / share)).to(items.share)
    return replace(items, share=items.share * kept)
