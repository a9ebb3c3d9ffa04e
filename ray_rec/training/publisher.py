"""Turns what a learner knows into versions: gated, then published to the registry."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ray_rec.config import RunConfig
from ray_rec.errors import VersionConflict, VersionCorrupt, VersionMissing
from ray_rec.features.arrays import Float32
from ray_rec.log.base import Offsets
from ray_rec.registry import Base, Draft, Manifest, Registry, Version
from ray_rec.registry import Gate as Verdict
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.plans import PlanStore

Kind = Literal["full", "delta"]

_CONTENT = ("features", "encoder", "model", "learner")
"""Sections of the configuration that a version follows from, given the plans."""

_log = logging.getLogger(__name__)


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
    popularity: Float32
    metrics: Mapping[str, float]


class Publisher:
    """Publishes candidates; the version in service stays loaded for the gate.

    `last` is the version that the learner's changes are counted from, which the next delta builds
    on; None where only a full version can follow. A checkpoint keeps it beside the learner.
    """

    def __init__(self, config: RunConfig, encoder_digest: str) -> None:
        self._config, self._encoder_digest = config, encoder_digest
        self._registry = Registry(config.registry, create=True)
        self._incumbent: Version | None = None
        self.last: Base | None = None

    def publish(
        self, learner: Learner, candidate: Candidate, gate: Gate, kind: Kind
    ) -> dict[str, Any]:
        """Judge and publish; returns what happened, for the window's metrics.

        A delta becomes a full version where there is nothing to build it on. Where the registry
        has the version with other content (other workers or another configuration made it), that
        one stays, and the next new one is full.
        """
        incumbent = self._in_service()
        tensors = None if incumbent is None else incumbent.tensors
        verdict = gate.judge(learner.tensors(), tensors, candidate.popularity, candidate.number)
        draft = self._draft(candidate, verdict, incumbent)
        try:
            manifest = self._put(learner, candidate, draft, kind)
            self.last = manifest.as_base()
        except VersionConflict as error:
            _log.error("%s; it stays as it is, the next new one will be full", error)
            manifest = self._registry.manifest(candidate.number)
            self.last = None
        learner.published()
        if manifest.kind == "full":  # until then all that a kept delta builds on stays anyhow
            self._registry.prune(self._config.training.keep_versions)
        return {"version": candidate.number, "promoted": manifest.promoted}

    def _in_service(self) -> Version | None:
        """The version that answers now; a rollback or another run may have changed it."""
        current = self._registry.current()
        if current is None:
            return None
        self._incumbent = self._registry.load(current.version, self._incumbent)
        return self._incumbent

    def _draft(self, candidate: Candidate, verdict: Verdict, incumbent: Version | None) -> Draft:
        """Say what is known of a candidate; its parent is the version learned on from."""
        parents = [self.last.number] if self.last else []
        parents += [incumbent.manifest.version] if incumbent else []
        parent = next((number for number in parents if number < candidate.number), None)
        first = parent or 0
        plans = PlanStore(f"{self._config.state_dir}/plans")  # a new one: plans may be amended
        windows = (plans.get(number) for number in range(first, candidate.number))
        plain = self._config.to_dict()
        return Draft(
            parent=parent,
            windows=(first, candidate.number - 1),
            offsets=candidate.offsets,
            config={name: plain.pop(name) for name in _CONTENT},
            encoder=self._encoder_digest,
            metrics=candidate.metrics,
            gate=verdict,
            plans=tuple(json.loads(window.to_json()) for window in windows if window is not None),
            run=plain,
        )

    def _put(self, learner: Learner, candidate: Candidate, draft: Draft, kind: Kind) -> Manifest:
        number, base = candidate.number, self.last
        if kind == "delta" and base is not None:
            rows = candidate.rows[base.num_items :]
            try:
                delta = replace(draft, base=base)
                return self._registry.publish(number, learner.export_changes(), rows, delta)
            except (VersionMissing, VersionCorrupt) as error:
                _log.error("%s; version %d is full", error, number)
        return self._registry.publish(number, learner.tensors(), candidate.rows, draft)
