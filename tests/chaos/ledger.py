"""The books of a run, kept a second time: its plans applied by a plain loop, without Ray."""

from collections import Counter
from dataclasses import dataclass

import msgspec

from ray_rec.config import RunConfig
from ray_rec.events.schema import DEAD_LETTER, EVENTS, EXPOSURES, DeadLetter
from ray_rec.features.state import FeatureState
from ray_rec.log.base import open_log
from ray_rec.log.reading import read_decoded
from ray_rec.log.window import Window
from tests.chaos.outcome import Outcome
from tests.features.builders import check_same_state


@dataclass(frozen=True)
class Ledger:
    """What became of each record that the plans hold.

    Attributes:
        counts: what the state counts, over all windows.
        rows: example rows, by `learned`, `held_out` and `set_aside`.
        learned: recall targets learned, by item.
        dead: (topic, partition, offset) of unusable records.
        state: after the last window.
    """

    counts: Counter[str]
    rows: Counter[str]
    learned: Counter[str]
    dead: set[tuple[str, int, int]]
    state: FeatureState

    @classmethod
    def of(cls, config: RunConfig, plans: list[Window]) -> "Ledger":
        """Apply `plans` to an empty state."""
        ledger = cls(Counter(), Counter(), Counter(), set(), FeatureState(config.features))
        for window in plans:
            ledger._enter(window, config.log)
        return ledger

    def _enter(self, window: Window, log_url: str) -> None:
        decoded = read_decoded(log_url, window.ranges)
        for topic, part in decoded.items():
            self.dead.update(
                (topic, row["partition"], row["offset"]) for row in part.dead.to_pylist()
            )
        made = self.state.apply(window, {topic: part.table for topic, part in decoded.items()})
        self.counts.update(made.counts)
        for row in made.examples.to_pylist():
            kind = "held_out" if row["held_out"] else "learned"
            kind = "set_aside" if window.set_aside and kind == "learned" else kind
            self.rows[kind] += 1
            if kind == "learned":
                items = [str(self.state.catalogue.item_id[at]) for at in row["target_item"]]
                self.learned.update(items)


def check_books(outcome: Outcome, config: RunConfig) -> Ledger:
    """Fail unless everything that was read is accounted for once; return the books.

    Records are as many as what became of them; each item was learned as often as it was taken;
    what is still open is in the state.
    """
    ledger, totals = Ledger.of(config, outcome.plans), outcome.state.totals
    read = Counter[str]()
    for window in outcome.plans:
        read.update({t: sum(e - s for s, e in w.values()) for t, w in window.ranges.items()})
    dead = Counter(topic for topic, _, _ in ledger.dead)
    assert read[EVENTS] == totals["events"] + dead[EVENTS]
    assert read[EXPOSURES] == totals["exposures"] + dead[EXPOSURES]
    dropped = ("exposure_duplicates", "empty_exposures", "erased_exposures")
    ends = totals["closed"] + totals["open"] + sum(totals[name] for name in dropped)
    assert totals["exposures"] == ends
    assert totals["open"] > 0, "the newest exposures wait for their outcomes"
    assert ledger.rows["held_out"] > 0
    assert ledger.counts == {k: v for k, v in totals.items() if k != "open"}
    check_same_state(ledger.state, outcome.state)
    assert buried(config) == ledger.dead
    return ledger


def check_learned_once(outcome: Outcome, ledger: Ledger) -> None:
    """Fail unless the weights count each item as often as it was a target; without replay."""
    count = outcome.last.tensors["items.count"].tolist()
    learned = {item: n for item, n in zip(outcome.last.rows, count, strict=True) if n}
    assert learned == dict(ledger.learned)


def buried(config: RunConfig) -> set[tuple[str, int, int]]:
    """Return whose letters lie in `dead-letter`; there may be several of one record."""
    with open_log(config.log) as log:
        ranges = {p: (0, end) for p, end in log.latest(DEAD_LETTER).items()}
        values = [v for table in log.read(DEAD_LETTER, ranges) for v in table["value"].to_pylist()]
    letters = [msgspec.json.decode(value, type=DeadLetter) for value in values]
    return {(letter.topic, letter.partition, letter.offset) for letter in letters}
