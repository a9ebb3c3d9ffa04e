"""Runs in MLflow, on a server or in a database of one file."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ray_rec.errors import ConfigError

_REFUSED = re.compile(r"[^\w\-. :/]", re.ASCII)  # what MLflow does not take in names


class MLflow:
    """Makes a run with the first window; windows that are learned again add points to their step.

    Args:
        uri: MLflow's tracking URI, as `http://host:5000` or `sqlite:///path`.
        experiment: what the run is filed under; it is made where there is none.
        config: what the run was told, kept as its parameters.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, uri: str, experiment: str, config: Mapping[str, Any]) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(
                'training.trackers names mlflow, which needs: pip install "ray-rec[mlflow]"'
            ) from error
        self._mlflow, self._uri, self._experiment, self._config = mlflow, uri, experiment, config
        self._run: tuple[mlflow.MlflowClient, str] | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each metric."""
        client, run = self._run = self._run or self._begin()
        now, point = time.time_ns() // 1_000_000, self._mlflow.entities.Metric
        named = {_REFUSED.sub("_", path): value for path, value in metrics.items()}
        client.log_batch(run, [point(name, value, now, step) for name, value in named.items()])

    def close(self) -> None:
        """Mark the run as finished."""
        if self._run is not None:
            self._run[0].set_terminated(self._run[1])

    def _begin(self) -> tuple[Any, str]:
        client = self._mlflow.MlflowClient(self._uri)
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else client.create_experiment(self._experiment)
        run = client.create_run(experiment).info.run_id
        param = self._mlflow.entities.Param
        client.log_batch(run, params=[param(*pair) for pair in _flat(self._config)])
        return client, run


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        yield from _flat(value, f"{prefix}{key}.") if inner else [(prefix + key, str(value))]
