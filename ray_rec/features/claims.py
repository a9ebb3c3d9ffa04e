"""Which exposure an outcome belongs to: the one it names, or the latest that waits for it."""

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import Int64, UInt64, column, lists, numbers

_COLUMNS = ("request", "user", "ts", "policy", "partition", "offset")


class Claims:
    """Exposures (OPEN_SCHEMA) whose users are all among `actors` (sorted), ready for look-ups.

    `windows_ms` is the attribution window by policy and outcome type, `skew_ms` how far the clock
    of an outcome that names its exposure may lag behind.
    """

    def __init__(
        self, exposures: pa.Table, actors: UInt64, windows_ms: Int64, skew_ms: int
    ) -> None:
        self._actors, self._windows_ms, self._skew_ms = actors, windows_ms, skew_ms
        self._of = {name: numbers(exposures, name) for name in _COLUMNS}
        item, lengths = lists(exposures, "shown_item")
        self._exposure = np.repeat(np.arange(len(lengths)), lengths)
        self._shown = (self._exposure << 32) | item
        user = np.searchsorted(actors, self._of["user"])[self._exposure]
        self._pair = (user.astype(np.int64) << 32) | item

    def of(self, outcomes: pa.Table) -> Int64:
        """Return the exposure that claims each outcome (OUTCOMES_SCHEMA) of an actor, or -1."""
        named = column(outcomes, "request").is_valid().to_numpy(zero_copy_only=False)
        exposure = np.empty(len(named), np.int64)
        exposure[named] = self._named(outcomes.filter(pa.array(named)))
        exposure[~named] = self._latest(outcomes.filter(pa.array(~named)))
        return exposure

    def _named(self, outcomes: pa.Table) -> Int64:
        """Return the exposure that each outcome names, if it fits it and is in time, or -1."""
        wanted, ts, made = numbers(outcomes, "request"), numbers(outcomes, "ts"), self._of["ts"]
        order = np.argsort(self._of["request"], kind="stable")
        place = np.searchsorted(self._of["request"][order], wanted)
        found = order[np.minimum(place, len(order) - 1)]
        same = self._of["user"][found] == numbers(outcomes, "user")
        same &= self._of["request"][found] == wanted
        same &= np.isin((found << 32) | numbers(outcomes, "item"), self._shown)
        ends = made[found] + self._windows_ms[self._of["policy"][found], numbers(outcomes, "type")]
        return np.where(same & (made[found] - self._skew_ms <= ts) & (ts < ends), found, -1)

    def _latest(self, outcomes: pa.Table) -> Int64:
        """Return the latest exposure of the item to the user that still waits for each, or -1.

        Windows of one policy end in the order they begin, so its latest exposure is enough.
        """
        shown, none = len(self._pair), np.zeros(outcomes.num_rows, np.int64)
        user = np.searchsorted(self._actors, numbers(outcomes, "user")).astype(np.int64)
        pair = np.append(self._pair, (user << 32) | numbers(outcomes, "item"))
        kind = np.append(np.zeros(shown, np.int8), numbers(outcomes, "type"))
        exposure = np.append(self._exposure, none - 1)
        made = {name: np.append(v[self._exposure], none) for name, v in self._of.items()}
        ts = made["ts"]
        ts[shown:] = numbers(outcomes, "ts")
        is_outcome = np.arange(len(pair)) >= shown
        order = np.lexsort((made["offset"], made["partition"], is_outcome, ts, pair))
        best = np.full(len(order), -1)
        for policy in np.unique(self._of["policy"]).tolist():
            such = (~is_outcome & (made["policy"] == policy))[order]
            last = np.maximum.accumulate(np.where(such, np.arange(len(order)), -1))
            at = order[last]
            waits = ts[order] < ts[at] + self._windows_ms[policy, kind[order]]
            best = np.maximum(best, np.where((pair[at] == pair[order]) & waits, last, -1))
        out = np.empty(len(order), np.int64)
        out[order] = np.where(best >= 0, exposure[order[best]], -1)
        return out[shown:]
