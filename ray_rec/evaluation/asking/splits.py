"""Ways to divide a table of events into what may be learned and what is asked.

| split | learned | asked | what it leaks |
| --- | --- | --- | --- |
| leave-one-out | all but the last event of each user | that last event | others' later events |
| global time | up to a moment | later events of users seen before it | nothing |
| item hold-out | the same without a share of the items | the same | nothing |

Equal times are in the order of a hash of user and item: an order by item id would tell which item
comes next. Splits by time let nothing be known that shares the time of a question, unless they are
told to take that order for the true one (`same_time`), as papers do with stamps of whole days.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.tables import Events
from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int64,
    first_of_groups,
    mix,
    segment_search,
    starts_of,
)
from ray_rec.features.histories import History

HELD_ITEMS = 0.1
FEWEST_EVENTS = 3
"""A user with fewer has no last event to be asked for, only behaviour to learn from."""

_SHIFT = 32  # a user and an item in one int64


@dataclass(frozen=True)
class Split:
    """Which events are learned, which may be known when their time has come, which are asked.

    `known` holds `train` and, where a user's events go on after it, those that a later question may
    look back on. `context` [T] is the place before which a question looks back, within its user.
    """

    events: Events
    train: Bool  # [n]
    known: Bool  # [n]
    target: Int64  # [T] places of events, in the order of their times
    context: Int64  # [T]

    def training(self) -> Interactions:
        """Return what rankers may be fitted on."""
        return self.events.interactions(self.train)

    def queries(self) -> Queries:
        """Return one question for each target, with the events known before it."""
        events, places = self.events, np.flatnonzero(self.known)
        first = np.searchsorted(places, np.searchsorted(events.user, events.user[self.target]))
        last = np.searchsorted(places, self.context)
        item = events.item[places].astype(np.int32)
        kind, ts = events.type[places], events.ts[places]
        histories = [  # views: a user's long past is held once, not once a question
            History(item[low:high], kind[low:high], ts[low:high])
            for low, high in zip(first.tolist(), last.tolist(), strict=True)
        ]
        return Queries(
            events.user[self.target],
            events.ts[self.target],
            histories,
            np.arange(len(self.target)),
            events.item[self.target],
            events.interactions(self.known & ~self.train),
            len(events.item_ids),
        )

    def times_learned(self) -> Int64:
        """Return how often each target's item is among the learned events, [T]."""
        counts = np.bincount(self.events.item[self.train], minlength=len(self.events.item_ids))
        return counts[self.events.item[self.target]]

    def sampled(self, most: int) -> Self:
        """Keep at most so many targets, those with the smallest stable hash; 0 keeps all."""
        if not 0 < most < len(self.target):
            return self
        events, target = self.events, self.target
        key = mix(events.item_hash[events.item[target]], events.user[target], events.ts[target])
        kept = np.sort(np.argsort(key, kind="stable")[:most])
        return self._asking(kept)

    def without_repeats(self) -> Self:
        """Leave out the targets that their user is known to have taken before.

        Raises:
            DataError: all targets are repeats.
        """
        pair = (self.events.user << _SHIFT) | self.events.item
        places = np.flatnonzero(self.known)
        distinct, first = np.unique(pair[places], return_index=True)
        at = np.minimum(np.searchsorted(distinct, pair[self.target]), len(distinct) - 1)
        again = distinct[at] == pair[self.target]
        again &= places[first[at]] < self.context
        if again.all():
            raise DataError(
                "nothing to test: every later event repeats an item of its user; "
                "let items be recommended again (--repeats)"
            )
        return self._asking(~again)

    def _asking(self, kept: AnyArray) -> Self:
        return replace(self, target=self.target[kept], context=self.context[kept])


def leave_one_out(events: Events) -> Split:
    """Ask for the last event of each user with at least `FEWEST_EVENTS`; learn all others.

    As in the papers, what comes before it in the order is known, of the same moment too.

    Raises:
        DataError: no user has as many events.
    """
    start = first_of_groups(events.user)
    size = np.diff(np.append(start, len(events)))
    target = (start + size - 1)[size >= FEWEST_EVENTS]
    if not len(target):
        raise DataError(
            f"nothing to test: no user has {FEWEST_EVENTS} events, the most are {size.max()}; "
            "leave-one-out needs longer histories"
        )
    train = np.ones(len(events), np.bool_)
    train[target] = False
    target = _by_moment(events, target)
    return Split(events, train, train, target, target)


@dataclass(frozen=True)
class TimeOptions:
    """How a split by time is made.

    `quantile` of the events are learned, and all of the last moment; `last_only` asks for the last
    event of each user alone; `same_time` lets a question know its user's events of the same time
    that come before it in the order.
    """

    quantile: float = 0.9
    last_only: bool = False
    same_time: bool = False

    def __post_init__(self) -> None:
        """Reject a quantile that leaves nothing to learn or to ask."""
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile is {self.quantile}; it must be above 0 and below 1")


def global_time(events: Events, options: TimeOptions | None = None) -> Split:
    """Learn up to a moment; ask for each later event of users seen until then.

    A question knows all that happened strictly before its own time, of the later stretch too.

    Raises:
        DataError: no user has events before and after.
    """
    return _by_time(events, np.ones(len(events), np.bool_), options or TimeOptions())


def validation_time(events: Events, test: float = 0.1, validation: float = 0.1) -> Split:
    """Learn up to a moment and ask for what came after it, all before a test period begins.

    What `global_time` asks for with the quantile 1 - test is not in the split: neither learned, nor
    known, nor asked.

    Args:
        events: of the whole stretch.
        test: share of the events that comes last and is left alone; 0 where there is no test.
        validation: share of the events, before it, that is asked for.

    Raises:
        ConfigError: the shares leave nothing to learn.
        DataError: no user has events in both parts.
    """
    if test < 0 or validation <= 0 or test + validation >= 1:
        raise ConfigError(
            f"test is {test} and validation {validation} of the events; they must be at least 0 "
            "and above 0, and leave some to learn"
        )
    end_ms = np.quantile(events.ts, 1 - test, method="lower")
    learned = (1 - test - validation) / (1 - test)
    return global_time(events.only(events.ts <= end_ms), TimeOptions(learned))


def item_holdout(
    events: Events, share: float = HELD_ITEMS, options: TimeOptions | None = None
) -> Split:
    """Split by time, and let nobody see any event of a `share` of the items, chosen by hash.

    They are asked for after the split but never known: neither learned, nor in histories or counts.

    Raises:
        ConfigError: the share is not above 0 and below 1.
        DataError: no user has events before and after.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share is {share}; it must be above 0 and below 1")
    chance = (mix(events.item_hash) >> np.uint64(11)).astype(np.float64) / 2**53
    return _by_time(events, chance[events.item] >= share, options or TimeOptions())


def _by_time(events: Events, known: Bool, options: TimeOptions) -> Split:
    cut_ms = np.quantile(events.ts, options.quantile, method="lower")
    train = known & (events.ts <= cut_ms)
    seen = np.bincount(events.user[train], minlength=int(events.user.max()) + 1) > 0
    asked = (events.ts > cut_ms) & seen[events.user]
    if options.last_only:
        asked &= np.append(events.user[1:] != events.user[:-1], True)
    if not asked.any():
        raise DataError(
            f"nothing to test: no user has events both until and after {cut_ms} ms, the "
            f"{options.quantile} quantile of {len(events)} events; take a longer stretch"
        )
    target = _by_moment(events, np.flatnonzero(asked))
    if options.same_time:
        return Split(events, train, known, target, target)
    start = starts_of(np.bincount(events.user))
    user = events.user[target]
    context = segment_search(events.ts, start[user], start[user + 1], events.ts[target])
    return Split(events, train, known, target, context)


def _by_moment(events: Events, target: Int64) -> Int64:
    """Return targets in the order of their times, so that counts need only ever move on."""
    return target[np.argsort(events.ts[target], kind="stable")]
