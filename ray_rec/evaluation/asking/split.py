"""A table of events divided into what may be learned, what may be known and what is asked."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.tables import Events
from ray_rec.features.arrays import Bool, Int64, first_of_groups, mix
from ray_rec.features.histories import History

_SHIFT = 32  # a user and an item in one int64


@dataclass(frozen=True)
class Split:
    """Which events are learned, which may be known when their time has come, which are asked.

    `known` holds `train` and, where a user's events go on after it, those that a later question may
    look back on. `context` is the place before which a question looks back, within its user.
    """

    events: Events
    train: Bool  # [n]
    known: Bool  # [n]
    target: Int64  # [T] places of events, distinct items of a question, in the order of `query`
    query: Int64  # [T] -> Q, ascending
    context: Int64  # [Q]
    asked_ms: Int64  # [Q] ascending

    def training(self) -> Interactions:
        """Return what rankers may be fitted on."""
        return self.events.interactions(self.train)

    def queries(self) -> Queries:
        """Return all questions, with the events known before each."""
        events, places, user = self.events, np.flatnonzero(self.known), self._user()
        first = np.searchsorted(places, np.searchsorted(events.user, user))
        last = np.searchsorted(places, self.context)
        item = events.item[places].astype(np.int32)
        kind, ts = events.type[places], events.ts[places]
        histories = [  # views: a user's long past is held once, not once a question
            History(item[low:high], kind[low:high], ts[low:high])
            for low, high in zip(first.tolist(), last.tolist(), strict=True)
        ]
        return Queries(
            user,
            self.asked_ms,
            histories,
            self.query,
            events.item[self.target],
            events.interactions(self.known & ~self.train),
            len(events.item_ids),
        )

    def times_learned(self) -> Int64:
        """Return how often each target's item is among the learned events, [T]."""
        counts = np.bincount(self.events.item[self.train], minlength=len(self.events.item_ids))
        return counts[self.events.item[self.target]]

    def sampled(self, most: int) -> Self:
        """Keep at most so many questions, by a stable hash of their first target; 0 keeps all."""
        if not 0 < most < len(self.context):
            return self
        events, target = self.events, self._first()
        key = mix(events.item_hash[events.item[target]], events.user[target], events.ts[target])
        kept = np.argsort(key, kind="stable")[:most]
        return self._asking(np.isin(self.query, kept))

    def without_repeats(self) -> Self:
        """Leave out the targets that their user is known to have taken before.

        Raises:
            DataError: all targets are repeats.
        """
        again = self.repeated()
        if again.all():
            raise DataError(
                "nothing to test: every later event repeats an item of its user; "
                "let items be recommended again (--repeats)"
            )
        return self._asking(~again)

    def repeated(self) -> Bool:
        """Return which targets [T] their user is known to have taken before the question."""
        pair = (self.events.user << _SHIFT) | self.events.item
        places = np.flatnonzero(self.known)
        distinct, first = np.unique(pair[places], return_index=True)
        at = np.minimum(np.searchsorted(distinct, pair[self.target]), len(distinct) - 1)
        earlier = places[first[at]] < self.context[self.query]
        again: Bool = (distinct[at] == pair[self.target]) & earlier
        return again

    def _first(self) -> Int64:
        """Return the first target of each question, [Q]."""
        return self.target[first_of_groups(self.query)]

    def _user(self) -> Int64:
        return self.events.user[self._first()]

    def _asking(self, kept: Bool) -> Self:
        used, query = np.unique(self.query[kept], return_inverse=True)
        context, asked_ms = self.context[used], self.asked_ms[used]
        return replace(
            self, target=self.target[kept], query=query, context=context, asked_ms=asked_ms
        )


def one_by_one(events: Events, train: Bool, known: Bool, target: Int64, context: Int64) -> Split:
    """Return a split that asks for each target [T] alone, at its time; they are in its order."""
    return Split(events, train, known, target, np.arange(len(target)), context, events.ts[target])
