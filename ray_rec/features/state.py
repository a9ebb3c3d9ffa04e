"""All that is remembered of the log, as a function of the windows applied so far.

The same class serves live, offline and backtest: `apply` takes windows in order and returns what
to learn; `update` lets a serving replica follow the log between snapshots.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Protocol

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
from ray_rec.features.controls import Controls
from ray_rec.features.corrections import corrections
from ray_rec.features.examples import EXAMPLES_SCHEMA, WindowExamples
from ray_rec.features.histories import Histories
from ray_rec.features.join import Join, outcomes_table
from ray_rec.features.popularity import Popularity
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

    `offsets` says from which offset of each topic and partition the log goes on. One thread may
    write (`apply`, `update`) while none reads. An exception out of them leaves the state undefined:
    restore it from a snapshot.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self.number = 0
        self.offsets: dict[str, dict[int, int]] = {}
        self.catalogue = Catalogue()
        self.behaviour = Behaviour(config)
        self.join = Join(config)
        self.watermark = Watermark(config.lateness_ms)
        self._seen_exposures = Seen(config.dedup_ms)
        places = {name: place for place, name in enumerate(config.outcome_types)}
        self._outcome_of_type = np.array([places.get(t, -1) for t in config.event_types], np.int8)

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
        self._check(window)
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
        counts["evicted"] = self.behaviour.settle(self.watermark.value_ms)
        items = np.union1d(changed, np.arange(known_items, len(self.catalogue))).astype(np.int32)
        self._finish(window)
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
        reached = self.popularity.latest_ms - self.config.lateness_ms
        reached = max(self.watermark.value_ms, reached)
        self.behaviour.absorb(records, topic_table(tables, CONTROLS), reached)
        self.behaviour.settle(reached)

    def _check(self, window: WindowPlan) -> None:
        if window.number != self.number:
            raise StateError(
                f"window {window.number} was given, the next one is {self.number}: apply each "
                "window once and in order, or restore the snapshot taken before it"
            )
        for topic, spans in window.ranges.items():
            for partition, (start, _) in spans.items():
                reached = self.offsets.get(topic, {}).get(partition, 0)
                if start < reached:
                    raise StateError(
                        f"window {window.number} starts {topic}/{partition} at offset {start}, but "
                        f"offsets below {reached} were applied already: plan it from there"
                    )

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
        join.open = mended(join.open, absorbed, controls, watermark_ms, length)
        join.add(made.filter(pa.array(first & (rows.num_items > 0))), outcomes)
        waiting = numbers(join.open, "request")
        return {
            "exposures": len(rows),
            "exposure_duplicates": int((~first).sum()),
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

    def _finish(self, window: WindowPlan) -> None:
        self.number += 1
        for topic, spans in window.ranges.items():
            self.offsets.setdefault(topic, {}).update({p: end for p, (_, end) in spans.items()})

    def snapshot(self) -> dict[str, pa.Table]:
        """Return everything as named tables: bounded, and enough to go on exactly."""
        places = [(t, p, o) for t, spans in self.offsets.items() for p, o in spans.items()]
        config = json.dumps(self.config.to_dict(), sort_keys=True)
        offsets = pa.Table.from_pylist(
            [{"topic": t, "partition": p, "offset": o} for t, p, o in places], _OFFSETS_SCHEMA
        ).replace_schema_metadata({"number": str(self.number), "config": config})
        return {
            "offsets": offsets,
            "catalogue": self.catalogue.snapshot(),
            "histories": self.histories.snapshot(),
            "popularity": self.popularity.snapshot(),
            "seen_events": self.behaviour.seen.snapshot(),
            "seen_exposures": self._seen_exposures.snapshot(),
            "controls": self.behaviour.controls.snapshot(),
            "open_exposures": self.join.open,
            "outcomes": self.join.outcomes,
            "watermark": self.watermark.snapshot(),
        }

    @classmethod
    def restore(cls, config: FeatureConfig, tables: Mapping[str, pa.Table]) -> "FeatureState":
        """Return the state that `snapshot` was taken of; raise StateError if it cannot be."""
        out = cls(config)
        missing = sorted(out.snapshot().keys() - tables.keys())
        if missing:
            raise StateError(f"no snapshot of features: tables {missing} are missing; take another")
        _same_config(config, tables["offsets"])
        out.number = int(tables["offsets"].schema.metadata[b"number"])
        for place in tables["offsets"].to_pylist():
            out.offsets.setdefault(place["topic"], {})[place["partition"]] = place["offset"]
        out.catalogue = Catalogue.restore(tables["catalogue"])
        out.behaviour.histories = Histories.restore(config.history_length, tables["histories"])
        out.behaviour.popularity = Popularity.restore(config.half_lives_days, tables["popularity"])
        out.behaviour.seen = Seen.restore(config.dedup_ms, tables["seen_events"])
        out.behaviour.controls = Controls.restore(tables["controls"])
        out._seen_exposures = Seen.restore(config.dedup_ms, tables["seen_exposures"])
        out.join.open, out.join.outcomes = tables["open_exposures"], tables["outcomes"]
        out.watermark = Watermark.restore(config.lateness_ms, tables["watermark"])
        return out


_OFFSETS: list[tuple[str, Any]] = [
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
]
_OFFSETS_SCHEMA = pa.schema(_OFFSETS)


def _same_config(config: FeatureConfig, offsets: pa.Table) -> None:
    stored = json.loads(offsets.schema.metadata[b"config"])
    wanted = config.to_dict()
    differing = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    if differing:
        key = differing[0]
        raise StateError(
            f"the snapshot was made with features.{key} = {stored.get(key)!r}, not "
            f"{wanted.get(key)!r}: use that value, or rebuild the state from the log"
        )
