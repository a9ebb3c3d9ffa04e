"""What a request tells of its moment: the item on the page, the words looked for, the placement.

So somebody without a past is answered by more than by what is popular.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_rec.features.config import FeatureConfig
from ray_rec.features.histories import History
from ray_rec.features.records import placement_codes
from ray_rec.serving.metrics import Metrics

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Encode = Callable[[Sequence[str], str], Float32]
"""Texts and the digest of the encoder that must encode them -> raw vectors [n, text_dim]."""

_VIEW = "view"
_log = logging.getLogger(__name__)


class Sought(NamedTuple):
    """A query's raw text vector [text_dim], and the digest of the encoder that made it."""

    vector: Float32
    encoder: str

    def by(self, encoder: str) -> Float32 | None:
        """Return the vector if this encoder made it; None else, as after a swap meanwhile."""
        return self.vector if self.encoder == encoder else None


def sought(query: str, encoder: str, encode: Encode, metrics: Metrics) -> Sought | None:
    """Return a query as the encoder of the version in service has it.

    None where the encoder fails: then the request is answered without its query, and it counts.
    """
    try:
        return Sought(encode([query], encoder)[0], encoder)
    except Exception as error:  # whatever a remote encoder raises
        metrics.follower_errors.labels("encoder").inc()
        _log.warning("a query is answered without its words: %s", error)
        return None


def placed(placement: str | None, num: int) -> Int64 | None:
    """Return the code of where `num` items will stand, as the click head learned it, [num].

    None where it is not told.
    """
    if placement is None:
        return None
    return np.repeat(placement_codes(pa.array([placement])).astype(np.int64), num)


def looking_at(history: History, row: int, features: FeatureConfig, at_ms: int) -> History:
    """Return the history with a view of an item at this moment, unless it ends with that item.

    Where views are no part of histories, it has the first type that is. A row of -1 is no item.
    """
    if row < 0 or (len(history.item) and history.item[-1] == row):
        return history
    kind = _VIEW if _VIEW in features.target_types else features.target_types[0]
    return History(
        np.append(history.item, np.int32(row)),
        np.append(history.type, np.int8(features.type_codes[kind])),
        np.append(history.ts, np.int64(at_ms)),
    )
