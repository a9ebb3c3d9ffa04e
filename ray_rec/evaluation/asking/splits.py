"""Ways to divide a table of events into what may be learned and what is asked.

| split | learned | asked | what it leaks |
| --- | --- | --- | --- |
| leave-one-out | all but the last event of each user | that last event | others' later events |
| global time | up to a moment | later events of users seen before it | nothing |
| item hold-out | the same without a share of the items | the same | nothing |
| next basket | up to a moment | what each user takes in each week after it | nothing |

Equal times are in the order of a hash of user and item: an order by item id would tell which item
comes next. Splits by time let nothing be known that shares the time of a question, unless they are
told to take that order for the true one (`same_time`), as papers do with stamps of whole days.
"""

from dataclasses import dataclass

import numpy as np

from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.split import Split, one_by_one
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

__all__ = [
    "FEWEST_EVENTS",
    "HELD_ITEMS",
    "Split",
    "TimeOptions",
    "global_time",
    "item_holdout",
    "leave_one_out",
    "validation_time",
]

HELD_ITEMS = 0.1
FEWEST_EVENTS = 3
"""A user with fewer has no last event to be asked for, only behaviour to learn from."""


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
    return one_by_one(events, train, train, target, target)


@dataclass(frozen=True)
class TimeOptions:
    """How a split by time is made.

    `quantile` of the events are learned, and all of the last moment; or what is before `at_ms`.
    `last_only` asks for the last event of each user alone; `same_time` lets a question know its
    user's events of the same time that come before it in the order.
    """

    quantile: float = 0.9
    last_only: bool = False
    same_time: bool = False
    at_ms: int | None = None

    def __post_init__(self) -> None:
        """Reject a quantile that leaves nothing to learn or to ask."""
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile is {self.quantile}; it must be above 0 and below 1")

    def begin_ms(self, ts: AnyArray) -> int:
        """Return the first moment that is not learned, of a table with these times."""
        if self.at_ms is not None:
            return self.at_ms
        return int(np.quantile(ts, self.quantile, method="lower")) + 1


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
    begin_ms = options.begin_ms(events.ts)
    train = known & (events.ts < begin_ms)
    seen = np.bincount(events.user[train], minlength=int(events.user.max()) + 1) > 0
    asked = (events.ts >= begin_ms) & seen[events.user]
    if options.last_only:
        asked &= np.append(events.user[1:] != events.user[:-1], True)
    if not asked.any():
        raise DataError(
            f"nothing to test: no user has events both until and after {begin_ms - 1} ms, of "
            f"{len(events)} events; take a longer stretch or another quantile or moment"
        )
    target = _by_moment(events, np.flatnonzero(asked))
    if options.same_time:
        return one_by_one(events, train, known, target, target)
    start = starts_of(np.bincount(events.user))
    user = events.user[target]
    context = segment_search(events.ts, start[user], start[user + 1], events.ts[target])
    return one_by_one(events, train, known, target, context)


def _by_moment(events: Events, target: Int64) -> Int64:
    """Return targets in the order of their times, so that counts need only ever move on."""
    return target[np.argsort(events.ts[target], kind="stable")]
