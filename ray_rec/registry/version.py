"""A version as it is loaded: whole, whether it was read at once or through its deltas."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ray_rec.errors import VersionCorrupt
from ray_rec.model.changes import Changes, merged
from ray_rec.registry.manifest import Manifest


@dataclass(frozen=True)
class Version:
    """`rows[r]` is the item_id of row r of the item tensors. Nothing of it ever changes."""

    tensors: dict[str, Tensor]
    rows: list[str]
    manifest: Manifest


def assembled(
    start: Version | None, parts: Sequence[tuple[Changes, Sequence[str]]], manifest: Manifest
) -> Version:
    """Return the version that `start` becomes by tensors and rows of `parts`, oldest first.

    Without `start` the first part is a full version. Unchanged tensors are shared with `start`.

    Raises:
        VersionCorrupt: there are rows of a table that is not there.
    """
    rows = list(start.rows if start else ())
    for _, more in parts:
        rows += more
    try:
        tensors = merged(start.tensors if start else {}, [changes for changes, _ in parts])
    except KeyError as error:
        raise VersionCorrupt(
            f"version {manifest.version} has rows of {error}, which its base lacks: "
            "use another version"
        ) from None
    return Version(tensors, rows, manifest)
