"""What is popular at the very time of a question, not at the end of what was learned."""

import numpy as np

from ray_rec.evaluation.questions import Interactions, Queries
from ray_rec.features.arrays import AnyArray, Int64
from ray_rec.features.config import DAY_MS


class LivePopularity:
    """Items by how often anybody took them in the days strictly before the question.

    Counts go on where learning ended: `Queries.fresh` is counted once its time has come.
    """

    name = "live-popularity"

    def __init__(self, days: float = 28.0) -> None:
        self._span_ms = round(days * DAY_MS)
        self._parts: list[Interactions] = []
        self._fresh: Interactions | None = None
        self._item: Int64 = np.zeros(0, np.int64)
        self._ts: Int64 = np.zeros(0, np.int64)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the counts of each query's own days."""
        if self._fresh is not queries.fresh:
            self._arrange(queries.fresh)
        moments, which = np.unique(queries.ts, return_inverse=True)
        low = np.searchsorted(self._ts, moments - self._span_ms)
        high = np.searchsorted(self._ts, moments)
        counts = np.stack(
            [
                np.bincount(self._item[start:end], minlength=queries.num_items)
                for start, end in zip(low.tolist(), high.tolist(), strict=True)
            ]
        )
        return counts[which].astype(np.float32)

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._parts.append(done)
        self._fresh = None

    def _arrange(self, fresh: Interactions) -> None:
        every = [*self._parts, fresh]
        ts = np.concatenate([part.ts for part in every])
        order = np.argsort(ts, kind="stable")
        self._ts = ts[order]
        self._item = np.concatenate([part.item for part in every])[order]
        self._fresh = fresh
