"""Purchases of Complete Journey as `events`, and the calendar of its weeks."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Raw

from ray_rec.events.parse import encode
from ray_rec.events.schema import Context, Event, Record

FIRST_WEEK, LAST_WEEK = 1, 53
HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
LAST_EVENT_MS = 1_514_779_280_000
"""2018-01-01 04:01:20 UTC, the last purchase of week 53."""

_WEEK_2_MS = 1_483_315_200_000  # Monday 2017-01-02, midnight UTC
_SUMMER_TIME = range(12, 46)

Ints = npt.NDArray[np.int64]


def week_start_ms(week: int) -> int:
    """Return when a week begins: Monday midnight in New York, as the stamps show, in ms UTC.

    >>> week_start_ms(46)  # 2017-11-06 05:00 UTC
    1509944400000
    """
    hours = 4 if week in _SUMMER_TIME else 5
    return _WEEK_2_MS + (week - 2) * WEEK_MS + hours * HOUR_MS


def context(store: int, week: int) -> Context:
    """Return what purchases and exposures say about where and when."""
    return {"store": Raw(b'"%d"' % store), "week": Raw(b"%d" % week)}


def request_id(week: int, household: int, store: int) -> str:
    """Return the id of what a household was shown in a store in a week."""
    return f"cj-{week}-{household}-{store}"


@dataclass(frozen=True)
class Purchases:
    """One week of purchases in time order, as columns; `ts` in ms is shifted already."""

    week: int
    household: Ints
    store: Ints
    basket: Ints
    product: Ints
    quantity: Ints
    value: npt.NDArray[np.float64]
    ts: Ints

    @classmethod
    def of(cls, week: int, table: pa.Table, ts: Ints) -> Self:
        """Take the columns of the package's table `transactions`."""
        return cls(
            week=week,
            household=table["household_id"].to_numpy(),
            store=table["store_id"].to_numpy(),
            basket=table["basket_id"].to_numpy(),
            product=table["product_id"].to_numpy(),
            quantity=table["quantity"].to_numpy(),
            value=table["sales_value"].to_numpy(),
            ts=ts,
        )

    def records(self, answered: npt.NDArray[np.bool_]) -> list[Record]:
        """Encode as `events`; rows that are `answered` name the exposure that they answer."""
        places = {store: context(store, self.week) for store in np.unique(self.store).tolist()}
        quantity = np.maximum(self.quantity, 1)
        columns = (
            self.household.tolist(),
            self.store.tolist(),
            self.basket.tolist(),
            self.product.tolist(),
            self.quantity.tolist(),
            self.value.tolist(),
            np.round(self.value / quantity, 6).tolist(),
            self.ts.tolist(),
            answered.tolist(),
        )
        return [
            Record(
                b"%d" % household,
                encode(
                    Event(
                        event_id=f"{basket}-{product}",
                        user_id=str(household),
                        item_id=str(product),
                        event_type="purchase",
                        ts=ts,
                        session_id=str(basket),
                        request_id=request_id(self.week, household, store) if answer else None,
                        value=value,
                        price=price if count > 0 else None,
                        quantity=count,
                        context=places[store],
                    )
                ),
                ts,
            )
            for household, store, basket, product, count, value, price, ts, answer in zip(
                *columns, strict=True
            )
        ]
