"""The protocol of next baskets: at each week's start, what will each user take within it?"""

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.asking.tables import Events
from ray_rec.features.arrays import first_of_groups, segment_search, starts_of
from ray_rec.features.config import DAY_MS

WEEK_MS = 7 * DAY_MS


def next_basket(events: Events, options: TimeOptions | None = None) -> Split:
    """Learn up to a moment; from there ask at the start of each week for its distinct items.

    Weeks are of seven days from that moment on. Asked are users with a basket in the week and any
    event before it; a question knows all that happened strictly before its week.

    Raises:
        DataError: nobody has events both before and after the moment.
    """
    begin_ms = (options or TimeOptions()).begin_ms(events.ts)
    first = starts_of(np.bincount(events.user))
    place = np.flatnonzero(events.ts >= begin_ms)
    week = (events.ts[place] - begin_ms) // WEEK_MS
    user = events.user[place]
    start_ms = begin_ms + week * WEEK_MS
    context = segment_search(events.ts, first[user], first[user + 1], start_ms)
    known = np.flatnonzero(context > first[user])
    if not len(known):
        raise DataError(
            f"nothing to test: no user has events both until and after {begin_ms - 1} ms, of "
            f"{len(events)} events; take a longer stretch or another quantile or moment"
        )
    order = known[np.lexsort((events.item[place[known]], user[known], week[known]))]
    chosen = order[first_of_groups(week[order], user[order], events.item[place[order]])]
    asked = first_of_groups(week[chosen], user[chosen])
    query = np.repeat(np.arange(len(asked)), np.diff(asked, append=len(chosen)))
    every, of = np.ones(len(events), np.bool_), chosen[asked]
    train = events.ts < begin_ms
    return Split(events, train, every, place[chosen], query, context[of], start_ms[of])
