"""Which features a click model leans on: permutation importance (Breiman 2001).

One feature at a time is shuffled over the asked rows; what AUC falls by is what the model has from
it alone. Features that tell the same stand in for each other, so each may look weak.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ray_rec.evaluation.clicks.models import ClickModel
from ray_rec.evaluation.metrics.ranking import auc
from ray_rec.features.arrays import AnyArray, Float32

MOST_ROWS = 20_000
"""Rows that are shuffled, drawn by the seed: one prediction a feature is dear."""


class Said(NamedTuple):
    """What a model that is not fitted here says of S shown items, NaN of those not asked about."""

    whole: Float32  # [S, O]
    without: dict[str, Float32]  # [S, O] by the name of what was shuffled; empty: not asked


def importance(
    model: ClickModel, names: tuple[str, ...], values: Float32, labels: AnyArray, seed: int
) -> dict[str, float]:
    """Return by how much AUC falls without each feature, the most important first.

    Args:
        model: fitted.
        names: of the F features.
        values: [n, F] of rows that were not learned.
        labels: [n] 0 or 1, both among them.
        seed: of the rows drawn and of the shuffles.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(values))[:MOST_ROWS]
    values, labels = values[rows], labels[rows]
    without = {}
    for place, name in enumerate(names):
        shuffled = values.copy()
        generator.shuffle(shuffled[:, place])
        without[name] = model.predict(shuffled)
    return auc_drops(labels, model.predict(values), without)


def auc_drops(
    labels: AnyArray, whole: AnyArray, without: Mapping[str, AnyArray]
) -> dict[str, float]:
    """Return by how much AUC falls from scores [n] to those without each feature, sorted."""
    area = auc(labels, whole)
    drops = {name: area - auc(labels, scores) for name, scores in without.items()}
    return dict(sorted(drops.items(), key=lambda drop: -drop[1]))
