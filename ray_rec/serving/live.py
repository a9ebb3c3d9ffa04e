"""One version as a replica serves it: weights in the replica's own row order. Never changed.

A request takes the reference once and sees one version from start to end; a swap, or a new item's
text vector, makes a new `Live` beside the old one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.model.ensemble import Scorer
from ray_rec.registry import Manifest, Version

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Live:
    """`learned` [N]: rows that the version knows; `has_vector` [N]: these and encoded cold ones."""

    servable: Scorer
    manifest: Manifest
    learned: Bool
    has_vector: Bool

    @property
    def num_rows(self) -> int:
        """Rows N of the catalogue that this can score."""
        return len(self.has_vector)


def to_replica_order(
    version: Version,
    servable: Scorer,
    item_ids: Sequence[str | None],
    groups: Int64,
    cold_of: Callable[[list[int]], Mapping[int, Float32]],
) -> Live:
    """Bring a version into the order of the replica's catalogue, of which `groups` [N, G] are keys.

    `cold_of` gives the raw text vectors [text_dim] that are known of rows which the version lacks;
    rows that have neither are there, but without a vector.
    """
    known = pa.array(version.rows, pa.string())
    found = pc.index_in(pa.array(item_ids, pa.string()), value_set=known)
    rows = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = np.flatnonzero(rows < 0).tolist()
    cold = cold_of(missing)
    raw = _stacked(missing, cold, servable.raw_dim)
    learned = rows >= 0
    has_vector = learned.copy()
    has_vector[list(cold)] = True
    return Live(servable.permute(rows, raw, groups[missing]), version.manifest, learned, has_vector)


def with_cold(live: Live, groups: Int64, cold: Mapping[int, Float32]) -> Live:
    """Return `live` with the rows of `groups` [N, G], those in `cold` by their raw text vectors."""
    rows = np.arange(max(len(groups), live.num_rows), dtype=np.int64)
    rows[live.num_rows :] = -1
    rows[list(cold)] = -1
    missing = np.flatnonzero(rows < 0)
    raw = _stacked(missing.tolist(), cold, live.servable.raw_dim)
    grown = np.zeros(len(rows), np.bool_)
    learned, has_vector = grown.copy(), grown
    learned[: live.num_rows], has_vector[: live.num_rows] = live.learned, live.has_vector
    has_vector[list(cold)] = True
    servable = live.servable.permute(rows, raw, groups[missing])
    return replace(live, servable=servable, learned=learned, has_vector=has_vector)


def _stacked(rows: list[int], vectors: Mapping[int, Float32], dim: int) -> Float32:
    out = np.zeros((len(rows), dim), np.float32)
    for place, row in enumerate(rows):
        if row in vectors:
            out[place] = vectors[row]
    return out
