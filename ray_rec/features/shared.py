"""What all users share: the parts of the state that no user owns, and how far the log is applied.

A window passes through it twice: before its users' owners apply it, since they need its items,
times and popularity; and after, when it counts what they found to be new.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS
from ray_rec.features.arrays import AnyArray, Bool, Float32, Int32, table_of
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.config import FeatureConfig
from ray_rec.features.covisits import Companions, Covisits
from ray_rec.features.examples import TAKEN_SCHEMA, WindowExamples
from ray_rec.features.part import Part
from ray_rec.features.popularity import Popularity
from ray_rec.features.progress import Progress
from ray_rec.features.promotions import columns_of, promotion_rows
from ray_rec.features.records import Records, read_records, topic_table
from ray_rec.features.responses import Responses, rate_codes, rates
from ray_rec.features.users import Chain, Gained, Share
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


@dataclass(frozen=True)
class Begun:
    """A window half applied: `share` is what it brings to all users; the rest as its examples."""

    share: Share
    items: pa.Table
    popularity: Float32
    promoted: pa.Table
    at_ms: int


class Shared:
    """The parts of the state that are nobody's alone; see FeatureState for what they are."""

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self.progress = Progress(config)
        self.catalogue = Catalogue()
        self.popularity = Popularity(config.half_lives_days, len(config.promotions))
        self.covisits = Covisits(config.covisits)
        self.responses = Responses(config.num_outcomes)
        self._codes = rate_codes(self.catalogue.groups)
        self.watermark = Watermark(config.lateness_ms)

    @property
    def parts(self) -> dict[str, Part]:
        """The components by the names of their tables."""
        return {
            "progress": self.progress,
            "catalogue": self.catalogue,
            "popularity": self.popularity,
            "covisits": self.covisits,
            "responses": self.responses,
            "watermark": self.watermark,
        }

    @property
    def num_bytes(self) -> int:
        """What is held, about, by its content."""
        return sum(part.num_bytes for part in self.parts.values())

    def begin(self, window: WindowPlan, tables: Mapping[str, pa.Table]) -> Begun:
        """Take the items and times of the next window; `finish` must follow.

        Raises StateError, before anything changes, when it is not the next one or goes back.
        """
        self.progress.check(window.number, window.ranges)
        known, since_ms = len(self.catalogue), self.watermark.value_ms
        changed, promoted = self.list_items(tables)
        records = read_records(tables, self.catalogue, self._config)
        self.grow()
        popularity = self.popularity.features()
        items = np.union1d(changed, np.arange(known, len(self.catalogue))).astype(np.int32)
        if len(items):
            self._codes = rate_codes(self.catalogue.groups)
        share = Share(
            records=records,
            wishes=topic_table(tables, CONTROLS),
            known=self._known(records.shown["item"], popularity),
            since_ms=since_ms,
            until_ms=self._advance(window, records),
            shared_bytes=self.num_bytes,
        )
        listed = self.catalogue.window_items(items)
        return Begun(share, listed, popularity, promoted, self.popularity.latest_ms)

    def list_items(self, tables: Mapping[str, pa.Table]) -> tuple[Int32, pa.Table]:
        """Take item records; return rows that changed, and what is promoted from now on."""
        items = topic_table(tables, ITEMS)
        changed = self.catalogue.apply(items)
        return changed, promotion_rows(items, self.catalogue, self._config.promotions)

    def promote(self, promoted: pa.Table) -> None:
        """Let items be promoted as a PROMOTED_SCHEMA table says."""
        self.popularity.promote(*columns_of(promoted))

    def grow(self) -> None:
        """Make room for all items of the catalogue."""
        for part in (self.popularity, self.covisits, self.responses):
            part.grow(len(self.catalogue))

    def _known(self, shown: AnyArray, popularity: Float32) -> dict[str, Float32]:
        """Return what is known of shown items [S] before the window."""
        responses = rates(self.responses.counts, self._codes, shown)
        return {"popularity": popularity[shown], "rates": responses}

    def finish(self, window: WindowPlan, begun: Begun, gained: Gained) -> WindowExamples:
        """Count what the window gave to the users; return what is to be learned."""
        self.count(begun.share.records, gained.is_token, gained.company)
        self.promote(begun.promoted)
        self.responses.add(gained.closed_item, gained.closed_labels)
        events, mask = begun.share.records.events, gained.is_token
        self.progress.advance(window.ranges, gained.counts)
        return WindowExamples(
            number=window.number,
            examples=gained.examples,
            items=begun.items,
            popularity=begun.popularity,
            at_ms=begun.at_ms,
            responses=self.responses.counts.copy(),
            counts=gained.counts,
            taken=table_of({"item": events.item[mask], "ts": events.ts[mask]}, TAKEN_SCHEMA),
            promoted=begun.promoted,
        )

    def count(self, records: Records, is_token: Bool, company: Companions) -> None:
        """Let new tokens count as popularity, and remember their company.

        In the order of the log: sums depend on it, and which company is the newest.
        """
        item, ts = records.events.item[is_token], records.events.ts[is_token]
        self.popularity.add(item, ts)
        self.covisits.add(item, company)

    def _advance(self, window: WindowPlan, records: Records) -> int:
        for topic, rows in ((EVENTS, records.events), (EXPOSURES, records.exposures)):
            self.watermark.observe(topic, rows.partition, rows.ts)
        return self.watermark.advance(window.idle, window.advance_to_ms)

    def restore(self, chain: Chain) -> None:
        """Become what the tables tell; it must be new. Raises StateError when it cannot."""
        for name, part in self.parts.items():
            part.restore([tables[name] for tables in chain])
        self.grow()
        self._codes = rate_codes(self.catalogue.groups)
