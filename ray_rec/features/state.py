"""All that is remembered of the log, as a function of the windows applied so far.

The same class serves live, offline and backtest: `apply` takes windows in order and returns what
to learn; `update` lets a serving replica follow the log between snapshots.
"""

from collections.abc import Mapping
from typing import Self

import pyarrow as pa

from ray_rec.events.schema import CONTROLS, EVENTS, ITEMS
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.config import FeatureConfig
from ray_rec.features.covisits import Covisits
from ray_rec.features.examples import WindowExamples
from ray_rec.features.histories import Histories
from ray_rec.features.join import Join
from ray_rec.features.popularity import Popularity
from ray_rec.features.portions import chains_of, shared_chain
from ray_rec.features.records import read_records, topic_table
from ray_rec.features.shared import Shared, WindowPlan
from ray_rec.features.users import Chain, UserState, tables_of
from ray_rec.features.watermark import Watermark


class FeatureState:
    """Catalogue, histories, popularity and the join after `number` windows.

    One thread may write (`apply`, `update`) while none reads. An exception out of them leaves the
    state undefined: restore it from a snapshot.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self._shared = Shared(config)
        self._users = UserState(config)

    @property
    def number(self) -> int:
        """The next window's."""
        return self._shared.progress.number

    @property
    def offsets(self) -> dict[str, dict[int, int]]:
        """From which offset of each topic and partition the log goes on."""
        return self._shared.progress.offsets

    @property
    def totals(self) -> dict[str, int]:
        """The counts of all windows so far added up, and `open`: exposures that wait now.

        events = duplicates + opted_out + forgotten + tokens + others; exposures =
        exposure_duplicates + empty_exposures + erased_exposures + closed + open.
        """
        return {**self._shared.progress.totals, "open": self.join.num_open}

    @property
    def num_bytes(self) -> int:
        """What is held, about, by its content; Python's memory may be somewhat larger."""
        users = sum(part.num_bytes for part in self._users.parts.values())
        return self._shared.num_bytes + users

    @property
    def catalogue(self) -> Catalogue:
        """The items by row."""
        return self._shared.catalogue

    @property
    def popularity(self) -> Popularity:
        """How often each item was taken lately; as many items as the catalogue has."""
        return self._shared.popularity

    @property
    def covisits(self) -> Covisits:
        """What was taken with each item lately; nothing where `features.covisits` is 0."""
        return self._shared.covisits

    @property
    def watermark(self) -> Watermark:
        """Until when all is in."""
        return self._shared.watermark

    @property
    def histories(self) -> Histories:
        """What each user did last."""
        return self._users.behaviour.histories

    @property
    def join(self) -> Join:
        """The exposures and outcomes that wait."""
        return self._users.join

    def apply(
        self, window: WindowPlan, tables: Mapping[str, pa.Table], examples: bool = True
    ) -> WindowExamples:
        """Apply the next window; `tables` are its decoded records by topic (missing: none).

        With `examples=False` the state changes alike but no rows are made. Raises StateError when
        the window is not the next one or goes back in the log.
        """
        begun = self._shared.begin(window, tables)
        gained = self._users.apply(begun.share, examples)
        return self._shared.finish(window, begun, gained)

    def update(self, tables: Mapping[str, pa.Table]) -> None:
        """Follow the log live: catalogue, histories, popularity and wishes move on.

        For serving replicas: no window is counted, no example made, and the join is left alone.
        Work grows with the records, not with items or users.
        """
        shared, users = self._shared, self._users
        listed = shared.list_items(tables)[1] if ITEMS in tables else None
        behaviour = {topic: t for topic, t in tables.items() if topic == EVENTS}
        records = read_records(behaviour, shared.catalogue, self.config)
        shared.grow()
        if listed is not None:
            shared.promote(listed)
        reached = self._reached()
        absorbed = users.behaviour.absorb(records, topic_table(tables, CONTROLS), reached)
        shared.count(records, absorbed.is_token, users.company(absorbed))
        users.settle(reached, self._reached(), shared.num_bytes)

    def _reached(self) -> int:
        latest = self.popularity.latest_ms - self.config.lateness_ms
        return max(self.watermark.value_ms, latest)

    def snapshot(self) -> dict[str, pa.Table]:
        """Return everything as named tables: bounded, and enough to go on exactly."""
        return tables_of(self._shared.parts | self._users.parts, whole=True)

    def changes(self) -> dict[str, pa.Table]:
        """Return what changed since the last `snapshot` or `changes`, as tables of the same names.

        Its cost grows with the records since then, not with users or items.
        """
        return tables_of(self._shared.parts | self._users.parts, whole=False)

    @classmethod
    def restore(cls, config: FeatureConfig, segments: Chain) -> Self:
        """Return the state that a `snapshot` and all `changes` after it, in order, were taken of.

        Whether one owner of users told them or several. Raises StateError when it cannot be.
        """
        out = cls(config)
        chains = chains_of(segments)
        out._shared.restore(shared_chain(segments))
        out._users = UserState.restore(config, chains, out.watermark.value_ms)
        return out
