"""All that is remembered of the log, as a function of the windows applied so far.

The same class serves live, offline and backtest: `apply` takes windows in order and returns what
to learn; `update` lets a serving replica follow the log between snapshots.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from ray_rec.errors import StateError
from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.features.arrays import Float32, numbers
from ray_rec.features.behaviour import Absorbed, Behaviour
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.clicks import click_examples, open_exposures
from ray_rec.features.config import FeatureConfig
from ray_rec.features.contexts import contexts, mended
from ray_rec.features.corrections import corrections
from ray_rec.features.examples import EXAMPLES_SCHEMA, WindowExamples
from ray_rec.features.histories import Histories
from ray_rec.features.join import Join, outcomes_table
from ray_rec.features.part import Part
from ray_rec.features.popularity import Popularity
from ray_rec.features.progress import Progress
from ray_rec.features.recall import recall_examples
from ray_rec.features.records import Records, is_held_out, read_records, topic_table
from ray_rec.features.seen import Seen
from ray_rec.features.watermark import Watermark


class WindowPlan(Protocol):
    """What the state reads of a window; `ray_rec.log.window.Window` is one."""

    @property
    def number(self) -> int:
        """Place in the sequence of windows, from 0."""

    @property
    def ranges(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """Offsets [start, end) by topic and partition."""

    @property
    def idle(self) -> Collection[tuple[str, int]]:
        """(topic, partition) pairs that the watermark does not wait for."""

    @property
    def advance_to_ms(self) -> int | None:
        """A time that the watermark moves on to at least."""


class FeatureState:
    """Catalogue, histories, popularity and the join after `number` windows.

    One thread may write (`apply`, `update`) while none reads. An exception out of them leaves the
    state undefined: restore it from a snapshot.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self._progress = Progress(config)
        self.catalogue = Catalogue()
        self.behaviour = Behaviour(config)
        self.join = Join(config)
        self.watermark = Watermark(config.lateness_ms)
        self._seen_exposures = Seen(config.dedup_ms)
        places = {name: place for place, name in enumerate(config.outcome_types)}
        self._outcome_of_type = np.array([places.get(t, -1) for t in config.event_types], np.int8)

    @property
    def number(self) -> int:
        """The next window's."""
        return self._progress.number

    @property
    def offsets(self) -> dict[str, dict[int, int]]:
        """From which offset of each topic and partition the log goes on."""
        return self._progress.offsets

    @property
    def totals(self) -> dict[str, int]:
        """The counts of all windows so far added up, and `open`: exposures that wait now.

        events = duplicates + opted_out + forgotten + tokens + others; exposures =
        exposure_duplicates + empty_exposures + erased_exposures + closed + open.
        """
        return {**self._progress.totals, "open": self.join.num_open}

    @property
    def num_bytes(self) -> int:
        """What is held, about, by its content; Python's memory may be somewhat larger."""
        return sum(part.num_bytes for part in self._parts.values())

    @property
    def histories(self) -> Histories:
        """What each user did last."""
        return self.behaviour.histories

    @property
    def popularity(self) -> Popularity:
        """How often each item was taken lately; as many items as the catalogue has."""
        return self.behaviour.popularity

    def apply(
        self, window: WindowPlan, tables: Mapping[str, pa.Table], examples: bool = True
    ) -> WindowExamples:
        """Apply the next window; `tables` are its decoded records by topic (missing: none).

        With `examples=False` the state changes alike but no rows are made. Raises StateError when
        the window is not the next one or goes back in the log.
        """
        self._progress.check(window.number, window.ranges)
        known_items, watermark_ms = len(self.catalogue), self.watermark.value_ms
        changed = self.catalogue.apply(topic_table(tables, ITEMS))
        records = read_records(tables, self.catalogue, self.config)
        self.popularity.grow(len(self.catalogue))
        at_ms, popularity = self.popularity.latest_ms, self.popularity.features()
        wishes = topic_table(tables, CONTROLS)
        absorbed = self.behaviour.absorb(records, wishes, watermark_ms)
        counts = {**absorbed.counts, "controls": wishes.num_rows}
        counts |= self._open(records, absorbed, popularity, watermark_ms)
        closed = self.join.close(self._advance(window, records))
        rows = self._examples(absorbed, closed) if examples else EXAMPLES_SCHEMA.empty_table()
        counts["closed"] = closed.num_rows
        counts |= self._settle(watermark_ms, self.watermark.value_ms)
        items = np.union1d(changed, np.arange(known_items, len(self.catalogue))).astype(np.int32)
        self._progress.advance(window.ranges, counts)
        listed = self.catalogue.window_items(items)
        return WindowExamples(window.number, rows, listed, popularity, at_ms, counts)

    def update(self, tables: Mapping[str, pa.Table]) -> None:
        """Follow the log live: catalogue, histories, popularity and wishes move on.

        For serving replicas: no window is counted, no example made, and the join is left alone.
        Work grows with the records, not with items or users.
        """
        if ITEMS in tables:
            self.catalogue.apply(topic_table(tables, ITEMS))
        behaviour = {topic: t for topic, t in tables.items() if topic == EVENTS}
        records = read_records(behaviour, self.catalogue, self.config)
        self.popularity.grow(len(self.catalogue))
        reached = self._reached()
        self.behaviour.absorb(records, topic_table(tables, CONTROLS), reached)
        self._settle(reached, self._reached())

    def _reached(self) -> int:
        latest = self.popularity.latest_ms - self.config.lateness_ms
        return max(self.watermark.value_ms, latest)

    def _settle(self, since_ms: int, now_ms: int) -> dict[str, int]:
        others = (self.catalogue, self._seen_exposures, self.join.exposed, self.join.acted)
        return self.behaviour.settle(since_ms, now_ms, sum(part.num_bytes for part in others))

    def _open(
        self, records: Records, absorbed: Absorbed, popularity: Float32, watermark_ms: int
    ) -> dict[str, int]:
        """Give new exposures and outcomes to the join; return what became of them."""
        rows, sequences, join = records.exposures, absorbed.sequences, self.join
        first = self._seen_exposures.is_new(rows.key, rows.ts, watermark_ms)
        config, controls = self.config, self.behaviour.controls
        length = config.history_length
        context = contexts(rows, absorbed.exposure_user, sequences, controls, length)
        held_out = is_held_out(rows.user, config.held_out_share)
        made = open_exposures(rows, records.shown, popularity, context, sequences, held_out)
        live = absorbed.live.take(self._outcome_of_type[absorbed.live.type] >= 0)
        outcomes = outcomes_table(live, self._outcome_of_type[live.type])
        shown_ms = self._seen_exposures.latest(live.request)
        join.exposed.replace(*mended(join.open, absorbed, controls, watermark_ms, length))
        join.add(made.filter(pa.array(first & (rows.num_items > 0))), outcomes)
        waiting = numbers(join.open, "request")
        return {
            "exposures": len(rows),
            "exposure_duplicates": int((~first).sum()),
            "empty_exposures": int((first & (rows.num_items == 0)).sum()),
            "late_exposures": int((first & (rows.ts < watermark_ms)).sum()),
            "erased_exposures": join.erase(controls),
            "outcomes": len(live),
            **corrections(outcomes, shown_ms, waiting, watermark_ms, config),
        }

    def _advance(self, window: WindowPlan, records: Records) -> int:
        for topic, rows in ((EVENTS, records.events), (EXPOSURES, records.exposures)):
            self.watermark.observe(topic, rows.partition, rows.ts)
        return self.watermark.advance(window.idle, window.advance_to_ms)

    def _examples(self, absorbed: Absorbed, closed: pa.Table) -> pa.Table:
        held_out = is_held_out(absorbed.user_hash, self.config.held_out_share)
        length = self.config.history_length
        recall = recall_examples(absorbed.sequences, absorbed.new, held_out, length)
        return pa.concat_tables([recall, click_examples(closed)])

    @property
    def _parts(self) -> dict[str, Part]:
        behaviour = self.behaviour
        return {
            "progress": self._progress,
            "catalogue": self.catalogue,
            "histories": behaviour.histories,
            "popularity": behaviour.popularity,
            "seen_events": behaviour.seen,
            "seen_exposures": self._seen_exposures,
            "controls": behaviour.controls,
            "open_exposures": self.join.exposed,
            "outcomes": self.join.acted,
            "watermark": self.watermark,
        }

    def snapshot(self) -> dict[str, pa.Table]:
        """Return everything as named tables: bounded, and enough to go on exactly."""
        return {name: part.snapshot() for name, part in self._parts.items()}

    def changes(self) -> dict[str, pa.Table]:
        """Return what changed since the last `snapshot` or `changes`, as tables of the same names.

        Its cost grows with the records since then, not with users or items.
        """
        return {name: part.changes() for name, part in self._parts.items()}

    @classmethod
    def restore(
        cls, config: FeatureConfig, segments: Sequence[Mapping[str, pa.Table]]
    ) -> "FeatureState":
        """Return the state that a `snapshot` and all `changes` after it, in order, were taken of.

        Raises StateError when it cannot be.
        """
        out = cls(config)
        for tables in segments:
            if missing := sorted(out._parts.keys() - tables.keys()):
                raise StateError(
                    f"no snapshot of features: tables {missing} are missing; take another"
                )
        for name, part in out._parts.items():
            part.restore([tables[name] for tables in segments])
        # Changes name the wishes that came; what they made void goes again.
        out.behaviour.prune(out.watermark.value_ms)
        return out
