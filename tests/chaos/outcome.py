"""What a run leaves behind, and whether two runs over the same plans left the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ray_rec.config import RunConfig
from ray_rec.features.state import FeatureState
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.window import Window
from ray_rec.registry import Registry, Version
from ray_rec.training.checkpoint import Checkpoints
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.plans import PlanStore

Tensors = Mapping[str, torch.Tensor]

_FACTS = ("digest", "kind", "parent", "windows", "plans", "offsets", "encoder", "promoted")
"""What two makings of one version agree in, beside its tensors."""


@dataclass(frozen=True)
class Outcome:
    """A run that has ended.

    Attributes:
        plans: every window decided, in order.
        facts: by version, what its manifest says that no repetition may change.
        last: the last version.
        learner: weights and optimizer state of the last checkpoint.
        state: the feature state of the last checkpoint.
    """

    plans: list[Window]
    facts: dict[int, dict[str, Any]]
    last: Version
    learner: Tensors
    state: FeatureState

    @classmethod
    def of(cls, config: RunConfig) -> "Outcome":
        """Read what the run of `config` left."""
        registry = Registry(config.registry)
        versions = registry.versions()
        manifests = {version: registry.manifest(version) for version in versions}
        kept = Checkpoints.of(config).newest()
        assert kept is not None
        snapshot = registry.snapshot(kept.number)
        assert snapshot is not None
        plans = read_plans(config)
        assert kept.number == len(plans)
        return cls(
            plans=plans,
            facts={k: {name: getattr(m, name) for name in _FACTS} for k, m in manifests.items()},
            last=registry.load(versions[-1]),
            learner=kept.learner,
            state=FeatureState.restore(config.features, snapshot.segments),
        )


def read_plans(config: RunConfig) -> list[Window]:
    """Return the run's windows in order."""
    store, plans = PlanStore(f"{config.state_dir}/plans"), list[Window]()
    while (window := store.get(len(plans))) is not None:
        plans.append(window)
    return plans


def check_same(disturbed: Outcome, calm: Outcome) -> None:
    """Fail unless both are the same, bit for bit."""
    assert disturbed.plans == calm.plans
    for version, facts in calm.facts.items():
        other = disturbed.facts.get(version, {})
        differing = {k: (other.get(k), v) for k, v in facts.items() if other.get(k) != v}
        assert not differing, f"version {version}: {differing}"
    assert disturbed.facts.keys() == calm.facts.keys()
    check_close(disturbed, calm, tolerance=0.0)


def check_close(disturbed: Outcome, calm: Outcome, tolerance: float) -> None:
    """Fail unless the last weights, optimizer states and feature states agree.

    Versions hold float32: what rounds to either side of a number may differ in its last bit.
    """
    _check_tensors(disturbed.learner, calm.learner, tolerance, 0.0)
    _check_tensors(disturbed.last.tensors, calm.last.tensors, tolerance, 2e-7 if tolerance else 0.0)
    check_same_state(disturbed.state, calm.state)


def check_same_state(left: FeatureState, right: FeatureState) -> None:
    """Fail unless both states hold the same; topics stand in any order in a plan."""
    assert left.totals == right.totals
    lefts, rights = left.snapshot(), right.snapshot()
    assert lefts.keys() == rights.keys()
    order: list[Any] = [(name, "ascending") for name in rights["progress"].column_names]
    for name, table in rights.items():
        both = lefts[name], table
        if name == "progress":
            both = both[0].sort_by(order), both[1].sort_by(order)
        assert both[0].equals(both[1]), name


def check_consumed(outcome: Outcome, log_url: str) -> None:
    """Fail unless plans hold each offset of the log once, and versions stand where plans end."""
    at: dict[tuple[str, int], int] = {}
    for number, window in enumerate(outcome.plans):
        assert window.number == number
        for topic, spans in window.ranges.items():
            for partition, (start, end) in spans.items():
                assert start == at.get((topic, partition), 0), f"window {number}: {topic}"
                at[topic, partition] = end
        facts = outcome.facts.get(number + 1)
        assert facts is None or facts["offsets"] == window.ends(), f"version {number + 1}"
    with open_log(log_url) as log:
        latest: dict[str, Offsets] = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
    assert at == {(t, p): end for t, ends in latest.items() for p, end in ends.items()}
    assert max(outcome.facts) == len(outcome.plans)


def _check_tensors(left: Tensors, right: Tensors, atol: float, rtol: float) -> None:
    assert left.keys() == right.keys()
    for name, tensor in right.items():
        torch.testing.assert_close(left[name], tensor, atol=atol, rtol=rtol, msg=name)
