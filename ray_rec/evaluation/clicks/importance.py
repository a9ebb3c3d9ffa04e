"""Which features a click model leans on: permutation importance (Breiman 2001).

One feature at a time is shuffled over the asked rows; what AUC falls by is what the model has from
it alone. Features that tell the same stand in for each other, so each may look weak.
"""

import numpy as np

from ray_rec.evaluation.clicks.models import ClickModel
from ray_rec.evaluation.metrics.ranking import auc
from ray_rec.features.arrays import AnyArray, Float32

MOST_ROWS = 20_000
"""Rows that are shuffled, drawn by the seed: one prediction a feature is dear."""


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
    whole = auc(labels, model.predict(values))
    drops = {}
    for place, name in enumerate(names):
        shuffled = values.copy()
        generator.shuffle(shuffled[:, place])
        drops[name] = whole - auc(labels, model.predict(shuffled))
    return dict(sorted(drops.items(), key=lambda drop: -drop[1]))
