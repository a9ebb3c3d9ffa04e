"""What is popular at the very time of a question, not at the end of what was learned."""

import numpy as np

from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.features.arrays import AnyArray, Int64
from ray_rec.features.config import DAY_MS
from ray_rec.features.covisits import Companions, companions_of


class Timeline:
    """All that is known to anybody, in the order of time: what was learned, and what came since."""

    def __init__(self) -> None:
        self.user: Int64 = np.zeros(0, np.int64)
        self.item: Int64 = np.zeros(0, np.int64)
        self.ts: Int64 = np.zeros(0, np.int64)
        self.learned_ms = 0  # time of the last event that was learned
        self._parts: list[Interactions] = []
        self._fresh: Interactions | None = None

    def observe(self, done: Interactions) -> bool:
        """Take what was learned; tell whether it is new: the same is taken once."""
        if any(part is done for part in self._parts):
            return False
        self._parts.append(done)
        self.learned_ms = max(self.learned_ms, int(done.ts.max(initial=0)))
        self._fresh = None
        return True

    def follow(self, queries: Queries) -> bool:
        """Take what these queries may know, where their time has come; tell whether it is new."""
        if self._fresh is queries.fresh:
            return False
        self._fresh = queries.fresh
        every = [*self._parts, queries.fresh]
        ts = np.concatenate([part.ts for part in every])
        order = np.argsort(ts, kind="stable")
        self.ts = ts[order]
        self.user = np.concatenate([part.user for part in every])[order]
        self.item = np.concatenate([part.item for part in every])[order]
        return True

    def company(self, reach: int) -> Companions:
        """Return the last `reach` things that each token's user had taken before it."""
        return companions_of(self.user, self.item, reach)


class LivePopularity:
    """Items by how often anybody took them in the days strictly before the question.

    Counts go on where learning ended: `Queries.fresh` is counted once its time has come.
    """

    name = "live-popularity"

    def __init__(self, days: float = 28.0) -> None:
        self._span_ms = round(days * DAY_MS)
        self._timeline = Timeline()

    def scores(self, queries: Queries) -> AnyArray:
        """Return the counts of each query's own days."""
        timeline = self._timeline
        timeline.follow(queries)
        moments, which = np.unique(queries.ts, return_inverse=True)
        low = np.searchsorted(timeline.ts, moments - self._span_ms)
        high = np.searchsorted(timeline.ts, moments)
        counts = np.stack(
            [
                np.bincount(timeline.item[start:end], minlength=queries.num_items)
                for start, end in zip(low.tolist(), high.tolist(), strict=True)
            ]
        )
        return counts[which].astype(np.float32)

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._timeline.observe(done)
