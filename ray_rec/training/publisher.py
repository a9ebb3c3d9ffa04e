"""Turns what a learner knows into versions: gated, then published to the registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.log.base import Offsets
from ray_rec.model.servable import Servable
from ray_rec.registry import Draft, Registry
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner


@dataclass(frozen=True)
class Candidate:
    """What a learner knows after `number` windows.

    Attributes:
        rows: item_id of each model row.
        offsets: next offset to be learned, by topic and partition.
        popularity: float32 [num_items, horizons].
        metrics: what the last window's test and learning gave.
    """

    number: int
    rows: list[str]
    offsets: Mapping[str, Offsets]
    popularity: np.ndarray
    metrics: Mapping[str, float]


class Publisher:
    """Publishes candidates; the version in service stays loaded for the gate."""

    def __init__(self, config: RunConfig, encoder_digest: str) -> None:
        self._config, self._encoder_digest = config, encoder_digest
        self._registry = Registry(config.registry, create=True)
        self._last: int | None = None
        self._incumbent: tuple[int, Servable] | None = None

    def publish(self, learner: Learner, candidate: Candidate, gate: Gate) -> dict[str, Any]:
        """Judge and publish; returns what happened, for the window's metrics."""
        if candidate.number == self._last:
            return {}
        tensors = learner.export()
        servable = Servable.from_tensors(tensors, self._config.model)
        incumbent = self._in_service()
        verdict = gate.judge(servable, incumbent, candidate.popularity)
        current = self._registry.current()
        manifest = self._registry.publish(
            candidate.number,
            tensors,
            candidate.rows,
            Draft(
                parent=current.version if current else None,
                windows=((self._last or 0), candidate.number - 1),
                offsets=candidate.offsets,
                config=self._config.to_dict(),
                encoder=self._encoder_digest,
                metrics=candidate.metrics,
                gate=verdict,
            ),
        )
        self._registry.prune(self._config.training.keep_versions)
        self._last = candidate.number
        if manifest.promoted:
            self._incumbent = (candidate.number, servable)
        return {"version": candidate.number, "promoted": manifest.promoted}

    def _in_service(self) -> Servable | None:
        """The version that answers now; a rollback or another run may have changed it."""
        current = self._registry.current()
        if current is None:
            return None
        if self._incumbent is None or self._incumbent[0] != current.version:
            loaded = self._registry.load(current.version)
            servable = Servable.from_tensors(loaded.tensors, self._config.model)
            self._incumbent = (current.version, servable)
        return self._incumbent[1]

    def publish_snapshot(
        self, number: int, tables: Mapping[str, pa.Table], offsets: Mapping[str, Offsets]
    ) -> None:
        """Publish the state before window `number`, where new replicas start from."""
        self._registry.publish_snapshot(number, tables, offsets)
