"""Publishes several versions as one that answers for all of them, in a registry of its own.

It is a full version like any other, so that replicas follow it and `rollback` leaves it; a trainer
cannot learn on from it.
"""

from collections.abc import Mapping, Sequence

import msgspec

from ray_rec.errors import RegistryError
from ray_rec.model.ensemble import EnsembleConfig, joined
from ray_rec.registry.manifest import Draft, Manifest
from ray_rec.registry.registry import Registry
from ray_rec.registry.version import Version


def publish_ensemble(
    registry: Registry, number: int, members: Sequence[Version], config: EnsembleConfig
) -> Manifest:
    """Store an ensemble as version `number` and make it CURRENT.

    The offsets are the least that a member has learned up to.

    Raises:
        RegistryError: members read texts through different encoders, or failed their gate.
        VersionConflict: the version exists with other content.
    """
    manifests = [member.manifest for member in members]
    encoders = {manifest.encoder for manifest in manifests}
    fit = all(m.gate.passed and "ensemble" not in m.config for m in manifests)
    if len(encoders) != 1 or not fit:
        raise RegistryError(
            f"versions {[m.version for m in manifests]} make no ensemble: they need one encoder "
            f"(they name {len(encoders)}), a passed gate each, and to be single models"
        )
    tensors, rows = joined([(member.tensors, member.rows) for member in members])
    first = manifests[0]
    draft = Draft(
        parent=None,
        windows=(
            min(manifest.windows[0] for manifest in manifests),
            max(manifest.windows[1] for manifest in manifests),
        ),
        offsets=_least([manifest.offsets for manifest in manifests]),
        config={
            **first.config,
            "ensemble": msgspec.to_builtins(config),
            "members": [manifest.digest for manifest in manifests],
        },
        encoder=first.encoder,
    )
    return registry.publish(number, tensors, rows, draft)


def _least(every: Sequence[Mapping[str, Mapping[int, int]]]) -> dict[str, dict[int, int]]:
    """Return the lowest offset of each topic and partition."""
    out: dict[str, dict[int, int]] = {}
    for offsets in every:
        for topic, partitions in offsets.items():
            known = out.setdefault(topic, {})
            for partition, end in partitions.items():
                known[partition] = min(end, known.get(partition, end))
    return out
