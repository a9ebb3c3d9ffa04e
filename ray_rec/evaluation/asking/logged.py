"""A log as one table of events and a catalogue, sifted as the features would sift it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.stretch import ends, starts
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.backtest import TOPICS, read_window
from ray_rec.evaluation.reports.provenance import data_digest
from ray_rec.events.schema import CONTROLS, EVENTS, ITEMS
from ray_rec.features.arrays import column, hash_strings, numbers
from ray_rec.features.catalogue import Catalogue
from ray_rec.features.controls import ACTION_CODES, ALWAYS, Controls
from ray_rec.features.promotions import promotion_rows
from ray_rec.features.records import read_records, topic_table
from ray_rec.log.base import EventLog, check_topics
from ray_rec.log.window import Window


@dataclass(frozen=True)
class Logged:
    """Events of target types, the N items that they and the catalogue name, and where from."""

    events: Events
    items: pa.Table  # [N] WINDOW_ITEMS_SCHEMA; the text is "" where there is none
    promoted: pa.Table  # PROMOTED_SCHEMA: how far each was promoted, and since when
    data: dict[str, object]  # the stretch, counts and digest
    window: Window  # all of it
    tables: dict[str, pa.Table]  # its decoded records by topic


def read_log(
    log: EventLog, config: RunConfig, start: str | None = None, end: str | None = None
) -> Logged:
    """Read a stretch into memory: each event once, without those that their users withdrew.

    Args:
        log: where from; items always from their beginning.
        config: its `features` say which event types count.
        start: first place, a time or offsets (see `stretch`).
        end: where to stop before.

    Raises:
        DataError: nothing is left that could be tested.
    """
    check_topics(log)
    first, last = starts(log, TOPICS, start), ends(log, TOPICS, end)
    spans = {
        topic: {p: (min(first[topic][p], offset), offset) for p, offset in last[topic].items()}
        for topic in TOPICS
    }
    counts = dict.fromkeys((*TOPICS, "dead"), 0)
    window = Window(0, spans)
    tables = read_window(log, window, counts)
    catalogue = Catalogue()
    listed = topic_table(tables, ITEMS)
    catalogue.apply(listed)
    promoted = promotion_rows(listed, catalogue, config.features.promotions)
    kept = _sifted(tables, catalogue, config)
    if not kept.num_rows:
        raise DataError(
            f"nothing to test: {counts[EVENTS]} events in the stretch, none of which may be used"
        )
    ids = [str(name) for name in catalogue.item_id]
    items = catalogue.window_items(np.arange(len(ids), dtype=np.int32))
    events = Events.of(kept, ids, config.features)
    return Logged(events, items, promoted, data_digest(first, last, counts), window, tables)


def _sifted(tables: dict[str, pa.Table], catalogue: Catalogue, config: RunConfig) -> pa.Table:
    """Return the events without duplicates and without what `controls` erase; names all items."""
    rows = read_records({EVENTS: tables[EVENTS]}, catalogue, config.features).events
    wishes, controls = topic_table(tables, CONTROLS), Controls()
    actions = [ACTION_CODES[str(name)] for name in wishes["action"].to_pylist()]
    users = hash_strings(column(wishes, "user_id"))
    controls.add(users, numbers(wishes, "ts"), np.array(actions, np.int8))
    first = np.zeros(len(rows), np.bool_)
    first[np.unique(rows.key, return_index=True)[1]] = True
    kept = first & ~controls.erases(rows.user, rows.ts, ALWAYS)
    return topic_table(tables, EVENTS).filter(pa.array(kept))
