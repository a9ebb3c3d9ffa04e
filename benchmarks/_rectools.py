"""What RecTools makes of a folder's tables; run in an environment of its own, without ray_rec.

python benchmarks/_rectools.py FOLDER    # reads the tables of rectools_check, prints JSON
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from implicit.nearest_neighbours import CosineRecommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import (
    MRR,
    NDCG,
    AvgRecPopularity,
    CatalogCoverage,
    HitRate,
    MeanInvUserFreq,
    calc_metrics,
)
from rectools.models import ImplicitItemKNNWrapperModel, PopularModel

K = 10


def main() -> int:
    """Judge the lists that were made elsewhere, then those of RecTools' own models."""
    folder = Path(sys.argv[1])
    learned, asked, lists = (
        pd.read_csv(folder / f"{name}.csv") for name in ("learned", "asked", "lists")
    )
    catalogue = range(json.loads((folder / "about.json").read_text())["items"])
    given = {str(name): part for name, part in lists.groupby("model")}
    own = _recommended(learned, asked)
    print(
        json.dumps(
            {
                "version": importlib.metadata.version("rectools"),
                "judged": {n: _judged(r, learned, asked, catalogue) for n, r in given.items()},
                "own": {n: _judged(r, learned, asked, catalogue) for n, r in own.items()},
                "shared": {n: _shared(r, given[n], len(asked)) for n, r in own.items()},
            }
        )
    )
    return 0


def _judged(
    reco: pd.DataFrame, learned: pd.DataFrame, asked: pd.DataFrame, catalogue: range
) -> dict[str, float]:
    metrics = {
        "hr": HitRate(K),
        "ndcg": NDCG(K, divide_by_achievable=True),
        "ndcg_of_ten": NDCG(K),
        "mrr": MRR(K),
        "coverage": CatalogCoverage(K, normalize=True),
        "popularity": AvgRecPopularity(K),
    }
    found = calc_metrics(metrics, reco, asked, learned, catalogue)
    # Novelty with Laplace's one: each event a user of its own, and one more of each item.
    items = [*learned[Columns.Item], *catalogue]
    events = pd.DataFrame({Columns.User: range(len(items)), Columns.Item: items})
    found["novelty"] = MeanInvUserFreq(K).calc(reco, events)
    return {name: float(value) for name, value in found.items()}


def _recommended(learned: pd.DataFrame, asked: pd.DataFrame) -> dict[str, pd.DataFrame]:
    dataset = Dataset.construct(learned)
    models: dict[str, Any] = {
        "popularity": PopularModel("n_interactions"),
        "item-knn": ImplicitItemKNNWrapperModel(CosineRecommender(K=100, num_threads=1)),
    }
    return {
        name: model.fit(dataset).recommend(asked[Columns.User].to_numpy(), dataset, K, True)
        for name, model in models.items()
    }


def _shared(one: pd.DataFrame, other: pd.DataFrame, num_lists: int) -> float:
    both = one.merge(other, on=[Columns.User, Columns.Item])
    return len(both) / (K * num_lists)


if __name__ == "__main__":
    sys.exit(main())
