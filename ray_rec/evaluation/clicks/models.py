"""Models of whether what is shown is taken: a prior, logistic regression, trees, a network."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ray_rec.errors import ConfigError
from ray_rec.evaluation.clicks.network import Network
from ray_rec.features.arrays import AnyArray, Float32, Float64

MISSING = '{} needs the package {}; install it with: pip install "ray-rec[evaluation]"'


class ClickModel(Protocol):
    """Learns labels 0 or 1 from features, and predicts their probability."""

    def fit(self, names: tuple[str, ...], features: Float32, labels: Float32) -> None:
        """Learn from features [n, F] with both labels among [n]."""

    def predict(self, features: Float32) -> Float64:
        """Return probabilities, [n]."""


class ItemRate:
    """The item's smoothed rate so far: no more than one feature."""

    def fit(self, names: tuple[str, ...], features: Float32, labels: Float32) -> None:
        """Find the feature."""
        self._column = names.index("item rate")

    def predict(self, features: Float32) -> Float64:
        """Return the rates."""
        odds = features[:, self._column].astype(np.float64)
        rate: Float64 = 1 / (1 + np.exp(-odds))
        return rate


class Logistic:
    """Logistic regression on features of mean 0 and variance 1, of the learned rows."""

    def __init__(self) -> None:
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise ConfigError(MISSING.format("logistic", "scikit-learn")) from error
        self._model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))

    def fit(self, names: tuple[str, ...], features: Float32, labels: Float32) -> None:
        """Learn."""
        self._model.fit(features, labels)

    def predict(self, features: Float32) -> Float64:
        """Return probabilities."""
        made: Float64 = self._model.predict_proba(features)[:, 1]
        return made


class Trees:
    """Gradient-boosted trees (LightGBM), with the same rounds whatever the data."""

    def __init__(self, seed: int = 0, rounds: int = 300) -> None:
        try:
            import lightgbm
        except ImportError as error:
            raise ConfigError(MISSING.format("lightgbm", "lightgbm")) from error
        self._library, self._rounds = lightgbm, rounds
        self._options = {
            "objective": "binary",
            "learning_rate": 0.05,
            "num_leaves": 63,
            "min_data_in_leaf": 50,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": seed,
            "verbose": -1,
        }

    def fit(self, names: tuple[str, ...], features: Float32, labels: Float32) -> None:
        """Learn."""
        data = self._library.Dataset(features, labels, params={"verbose": -1})
        self._model = self._library.train(self._options, data, self._rounds)

    def predict(self, features: Float32) -> Float64:
        """Return probabilities."""
        made: AnyArray = np.asarray(self._model.predict(features))
        return made


CLICK_MODELS: dict[str, Callable[[int], ClickModel]] = {
    "item-prior": lambda _: ItemRate(),
    "logistic": lambda _: Logistic(),
    "lightgbm": lambda seed: Trees(seed),
    "network": lambda seed: Network(seed),
}
"""By name, each made with a seed."""
