"""What is known at the very time of a question, not at the end of what was learned."""

import numpy as np
import pyarrow as pa

from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.features.arrays import AnyArray, Float32, Int64
from ray_rec.features.config import DAY_MS, FeatureConfig
from ray_rec.features.covisits import NO_COMPANIONS, Companions, Covisits, companions_of, reach_of
from ray_rec.features.examples import PROMOTED_SCHEMA
from ray_rec.features.popularity import Popularity
from ray_rec.features.promotions import by_time


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


class LiveCounts:
    """Popularity and company of a catalogue as of any time; times in their order cost the least.

    `promoted` (PROMOTED_SCHEMA) is how far items are promoted, and since when.
    """

    def __init__(self, features: FeatureConfig, promoted: pa.Table | None = None) -> None:
        self.timeline = Timeline()
        self._features, self._company = features, NO_COMPANIONS
        self._promoted = by_time(PROMOTED_SCHEMA.empty_table() if promoted is None else promoted)
        self._num_items, self._counted, self._told = 0, 0, 0
        self._popularity, self._covisits = self._nothing()

    def follow(self, queries: Queries) -> None:
        """Take what these queries may know, where their time has come."""
        if self.timeline.follow(queries):
            if self._features.covisits:
                self._company = self.timeline.company(reach_of(self._features))
            self._num_items, self._counted, self._told = queries.num_items, 0, 0
            self._popularity, self._covisits = self._nothing()

    def before(self, at_ms: int) -> tuple[Float32, Covisits]:
        """Return popularity [N, P] at a time and the company, of what came strictly before it."""
        timeline = self.timeline
        until = int(np.searchsorted(timeline.ts, at_ms))
        if until < self._counted:
            self._counted = self._told = 0
            self._popularity, self._covisits = self._nothing()
        new = slice(self._counted, until)
        self._popularity.add(timeline.item[new], timeline.ts[new])
        self._covisits.add(timeline.item, self._company.within(self._counted, until))
        item, ts, shares = self._promoted
        since = slice(self._told, int(np.searchsorted(ts, at_ms)))
        self._popularity.promote(item[since], ts[since], shares[since])
        self._counted, self._told = until, since.stop
        return self._popularity.features(at_ms), self._covisits

    def _nothing(self) -> tuple[Popularity, Covisits]:
        features = self._features
        popularity = Popularity(features.half_lives_days, len(features.promotions))
        covisits = Covisits(features.covisits)
        popularity.grow(self._num_items)
        covisits.grow(self._num_items)
        return popularity, covisits


class Company:
    """Items by how much they are in the company of what a user took last: counting alone.

    It is what the hybrid adds in answering (`model.late_covisits`), without anything learned.
    """

    name = "company"

    def __init__(self, features: FeatureConfig) -> None:
        self._live = LiveCounts(features)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the support of each item, 0 where `features.covisits` is 0."""
        self._live.follow(queries)
        out = np.zeros((len(queries), queries.num_items), np.float32)
        for query, at_ms in enumerate(queries.ts.tolist()):
            popularity, covisits = self._live.before(at_ms)
            support = covisits.support(queries.histories[query].item, popularity)
            if support is not None:
                out[query] = support
        return out

    def observe(self, done: Interactions) -> None:
        """Remember."""
        self._live.timeline.observe(done)


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
