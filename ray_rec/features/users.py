"""What is kept of users: histories, wishes, keys seen before, open exposures and outcomes.

A `UserState` holds all users, or those of one of several owners; no user's part depends on
another's, but for the memory that they share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import Bool, Float32, Int64, lists, numbers
from ray_rec.features.behaviour import Absorbed, Behaviour
from ray_rec.features.clicks import click_examples, open_exposures
from ray_rec.features.config import FeatureConfig
from ray_rec.features.contexts import contexts, mended
from ray_rec.features.corrections import corrections
from ray_rec.features.covisits import NO_COMPANIONS, Companions, companions, reach_of
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.features.join import Join, outcomes_table
from ray_rec.features.part import Part
from ray_rec.features.recall import recall_examples
from ray_rec.features.records import Records, is_held_out
from ray_rec.features.seen import Seen

Chain = Sequence[Mapping[str, pa.Table]]
"""The tables of a whole state, then those of the changes after it, in order."""


@dataclass(frozen=True)
class Share:
    """What a window brings to some users; the watermark moves from `since_ms` to `until_ms`."""

    records: Records
    wishes: pa.Table
    known: dict[str, Float32]  # popularity [S, H] and rates [S, F] of shown items, at its start
    since_ms: int
    until_ms: int
    shared_bytes: int  # of what all users share, with whom it counts against the memory


@dataclass(frozen=True)
class Gained:
    """What a window gave: examples (EXAMPLES_SCHEMA), counts, which events [n] are new tokens.

    `company` is that of the new tokens, where it is kept. `closed_item` and `closed_labels` are
    the items of exposures that closed, but those of people held out, with the bits of their
    outcomes.
    """

    is_token: Bool
    company: Companions
    closed_item: Int64
    closed_labels: Int64
    examples: pa.Table
    counts: dict[str, int]


class UserState:
    """All that is remembered of the users of one of `num_owners`, or of all."""

    def __init__(self, config: FeatureConfig, num_owners: int = 1) -> None:
        self._config, self._num_owners = config, num_owners
        self.behaviour = Behaviour(config, num_owners)
        self.join = Join(config)
        self._seen_exposures = Seen(config.dedup_ms)
        places = {name: place for place, name in enumerate(config.outcome_types)}
        self._outcome_of_type = np.array([places.get(t, -1) for t in config.event_types], np.int8)

    @property
    def parts(self) -> dict[str, Part]:
        """The components by the names of their tables."""
        return {
            "histories": self.behaviour.histories,
            "seen_events": self.behaviour.seen,
            "seen_exposures": self._seen_exposures,
            "controls": self.behaviour.controls,
            "open_exposures": self.join.exposed,
            "outcomes": self.join.acted,
        }

    def apply(self, share: Share, examples: bool = True) -> Gained:
        """Apply what a window brings; with `examples=False` no rows are made of it."""
        absorbed = self.behaviour.absorb(share.records, share.wishes, share.since_ms)
        counts = {**absorbed.counts, "controls": share.wishes.num_rows}
        counts |= self._open(share, absorbed)
        closed = self.join.close(share.until_ms)
        rows = self._examples(absorbed, closed) if examples else EXAMPLES_SCHEMA.empty_table()
        counts["closed"] = closed.num_rows
        counts |= self.settle(share.since_ms, share.until_ms, share.shared_bytes)
        told = closed.filter(pa.array(~numbers(closed, "held_out")))
        item, labels = (lists(told, f"shown_{n}")[0].astype(np.int64) for n in ("item", "labels"))
        return Gained(absorbed.is_token, self.company(absorbed), item, labels, rows, counts)

    def company(self, absorbed: Absorbed) -> Companions:
        """Return the company of what is new, where it is kept."""
        if not self._config.covisits:
            return NO_COMPANIONS
        return companions(absorbed.sequences, absorbed.new, reach_of(self._config))

    def settle(self, since_ms: int, now_ms: int, shared_bytes: int) -> dict[str, int]:
        """Let go of what is no longer needed; return how many users went by which bound."""
        others = (self._seen_exposures, self.join.exposed, self.join.acted)
        other_bytes = sum(part.num_bytes for part in others) + shared_bytes / self._num_owners
        return self.behaviour.settle(since_ms, now_ms, other_bytes)

    def _open(self, share: Share, absorbed: Absorbed) -> dict[str, int]:
        """Give new exposures and outcomes to the join; return what became of them."""
        config, controls = self._config, self.behaviour.controls
        rows, sequences, join = share.records.exposures, absorbed.sequences, self.join
        since_ms, length = share.since_ms, config.history_length
        first = self._seen_exposures.is_new(rows.key, rows.ts, since_ms)
        context = contexts(rows, absorbed.exposure_user, sequences, controls, length)
        held_out = is_held_out(rows.user, config.held_out_share)
        shown = share.records.shown
        made = open_exposures(rows, shown, share.known, context, sequences, held_out)
        live = absorbed.live.take(self._outcome_of_type[absorbed.live.type] >= 0)
        outcomes = outcomes_table(live, self._outcome_of_type[live.type])
        shown_ms = self._seen_exposures.latest(live.request)
        join.exposed.replace(*mended(join.open, absorbed, controls, since_ms, length))
        join.add(made.filter(pa.array(first & (rows.num_items > 0))), outcomes)
        waiting = numbers(join.open, "request")
        return {
            "exposures": len(rows),
            "exposure_duplicates": int((~first).sum()),
            "empty_exposures": int((first & (rows.num_items == 0)).sum()),
            "late_exposures": int((first & (rows.ts < since_ms)).sum()),
            "erased_exposures": join.erase(controls),
            "outcomes": len(live),
            **corrections(outcomes, shown_ms, waiting, since_ms, config),
        }

    def _examples(self, absorbed: Absorbed, closed: pa.Table) -> pa.Table:
        held_out = is_held_out(absorbed.user_hash, self._config.held_out_share)
        length = self._config.history_length
        recall = recall_examples(absorbed.sequences, absorbed.new, held_out, length)
        return pa.concat_tables([recall, click_examples(closed)])

    @classmethod
    def restore(
        cls,
        config: FeatureConfig,
        chains: Sequence[Chain],
        watermark_ms: int,
        num_owners: int = 1,
    ) -> Self:
        """Return the state of all users in the `chains`, each told by an owner of its own."""
        out = cls(config, num_owners)
        for chain in chains:
            for name, part in out.parts.items():
                part.restore([tables[name] for tables in chain])
        # Changes name the wishes that came; what they made void goes again.
        out.behaviour.prune(watermark_ms)
        return out


def tables_of(parts: Mapping[str, Part], whole: bool) -> dict[str, pa.Table]:
    """Return all of the parts, or what changed, by their names."""
    return {name: part.snapshot() if whole else part.changes() for name, part in parts.items()}
