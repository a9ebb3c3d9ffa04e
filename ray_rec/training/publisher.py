"""Turns what a learner knows into versions, beside learning: gated, then put into the registry."""

import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ray_rec.config import RunConfig
from ray_rec.errors import VersionConflict, VersionCorrupt, VersionMissing
from ray_rec.features.arrays import Float32
from ray_rec.log.base import Offsets
from ray_rec.model.changes import Rows
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Base, Draft, Manifest, Registry, Version
from ray_rec.registry import Gate as Verdict
from ray_rec.training.checkpoint import TrainerCheckpoint
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
        popularity: float32 [num_items, P].
        metrics: what the last window's test and learning gave.
    """

    number: int
    rows: list[str]
    offsets: Mapping[str, Offsets]
    popularity: Float32
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class _Learned:
    """Tensors of a version to be, all and those that changed since the one before; nobody else's.

    `changes` are None where a full version is to be made.
    """

    tensors: Mapping[str, Tensor]
    changes: Mapping[str, Tensor | Rows] | None


class Publisher:
    """Publishes one candidate at a time; the version in service stays loaded for the gate.

    `last` is the version that the learner's changes are counted from, which the next delta builds
    on; None where only a full version can follow. It stands once `flush` returned, and a checkpoint
    keeps it beside the learner. `encoder` is the digest of the encoder that versions name.
    """

    def __init__(self, config: RunConfig, encoder_digest: str) -> None:
        self._config, self.encoder = config, encoder_digest
        self._registry = Registry(config.registry, create=True)
        self._thread = ThreadPoolExecutor(1, "versions")
        self._publishing: Future[Manifest] | None = None
        self._incumbent: Version | None = None
        self.last: Base | None = None

    def go_on(self, kept: TrainerCheckpoint | None) -> None:
        """Count from the version, and name the encoder, that a checkpoint does."""
        self.last = None if kept is None else kept.published
        if kept is not None and kept.encoders:
            self.encoder = kept.encoders[-1]

    def take_encoder(self, encoder: TextEncoder) -> None:
        """Let the versions from here on name the encoder as it is now, and store it for them."""
        self.flush()
        self.encoder = encoder.digest
        self._registry.encoders.write(self.encoder, encoder.files())

    def begin(self, learner: Learner, candidate: Candidate, gate: Gate, kind: Kind) -> None:
        """Begin to publish what `learner` knows now, once the one before is done; it may go on.

        A delta becomes a full version where there is nothing to build it on. Where the registry
        has the version with other content (other workers or another configuration made it), that
        one stays, and the next new one is full.
        """
        self.flush()
        delta = kind == "delta" and self.last is not None
        learned = _Learned(learner.export(), learner.export_changes() if delta else None)
        learner.published()
        self._publishing = self._thread.submit(self._publish, learned, candidate, copy(gate))

    def flush(self) -> Manifest | None:
        """Wait for the version that is being published and return it; raise what went wrong."""
        publishing, self._publishing = self._publishing, None
        return None if publishing is None else publishing.result()

    def _publish(self, learned: _Learned, candidate: Candidate, gate: Gate) -> Manifest:
        incumbent = self._in_service()
        tensors = None if incumbent is None else incumbent.tensors
        verdict = gate.judge(learned.tensors, tensors, candidate.popularity, candidate.number)
        draft = self._draft(candidate, verdict, incumbent)
        try:
            manifest = self._put(learned, candidate, draft)
            self.last = manifest.as_base()
        except VersionConflict as error:
            _log.error("%s; it stays as it is, the next new one will be full", error)
            manifest = self._registry.manifest(candidate.number)
            self.last = None
        if manifest.kind == "full":  # until then all that a kept delta builds on stays anyhow
            self._registry.prune(self._config.training.keep_versions)
        return manifest

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
            encoder=self.encoder,
            metrics=candidate.metrics,
            gate=verdict,
            plans=tuple(json.loads(window.to_json()) for window in windows if window is not None),
            run=plain,
        )

    def _put(self, learned: _Learned, candidate: Candidate, draft: Draft) -> Manifest:
        number, base = candidate.number, self.last
        if learned.changes is not None and base is not None:
            rows = candidate.rows[base.num_items :]
            try:
                return self._registry.publish(
                    number, learned.changes, rows, replace(draft, base=base)
                )
            except (VersionMissing, VersionCorrupt) as error:
                _log.error("%s; version %d is full", error, number)
        return self._registry.publish(number, learned.tensors, candidate.rows, draft)
