"""Outcomes that come when their exposure has been emitted without them.

The label stays 0, for an example is learned once; the count by type says by how much the rates
that were learned are too low.
"""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import AnyArray, Int64, UInt64, column, numbers
from ray_rec.features.config import FeatureConfig


def corrections(
    outcomes: pa.Table, shown_ms: Int64, waiting: UInt64, watermark_ms: int, config: FeatureConfig
) -> dict[str, int]:
    """Return how many of the window's OUTCOMES_SCHEMA rows are corrections, in all and by type.

    Args:
        outcomes: they; only those that name a request can be told.
        shown_ms: when the request that each one names was answered, far in the past if never.
        waiting: requests whose exposures are open still.
        watermark_ms: as it was at the window's start.
        config: gives the windows.
    """
    longest_ms = np.array(config.attribution_windows_ms, np.int64).max(axis=0)
    named = column(outcomes, "request").is_valid().to_numpy(zero_copy_only=False)
    kind, ts = numbers(outcomes, "type"), numbers(outcomes, "ts")
    late: AnyArray = named & (ts < watermark_ms)
    late &= (shown_ms - config.lateness_ms <= ts) & (ts < shown_ms + longest_ms[kind])
    if late.any():
        late &= ~np.isin(numbers(outcomes, "request", fill=0), waiting)
    by_type = np.bincount(kind[late], minlength=config.num_outcomes).tolist()
    names = (f"late_outcomes_{name}" for name in config.outcome_types)
    return {"late_outcomes": sum(by_type), **dict(zip(names, by_type, strict=True))}
