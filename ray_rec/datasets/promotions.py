"""Promotions of Complete Journey as `exposures` with outcomes, and as shares of the stores.

What a store promoted in a week was there for everybody, so the propensity of each shown item is 1:
it weighs nothing up or down. Where it stood in the store and in the mailer is its placement. Of
what was promoted and not bought only a sample is shown, four for each item bought; that sets the
share of positives (20 %), and rates must be read with it in mind.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_rec.datasets.products import Shares
from ray_rec.datasets.purchases import Ints, Purchases, context, request_id, week_start_ms
from ray_rec.events.parse import encode
from ray_rec.events.schema import ExposedItem, Exposure, Record

POLICY = "complete-journey-promotions"
NEGATIVES = 4
SEED = 7
_SPARE_DRAWS = 8  # beyond a quarter more than needed: draws may repeat or hit what was bought
_PLACES = ("display_location", "mailer_location")
_SHIFT = 32  # two ids in one int64: product ids and groups stay below 2**31


class Shown(NamedTuple):
    """The exposures of a week, and which of its purchases [n] answer one of them."""

    records: list[Record]
    answered: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Promoted:
    """What a week promoted: distinct `store << 32 | product`, ascending, and where each stood."""

    pair: Ints
    placement: npt.NDArray[np.object_]

    def shares(self) -> dict[int, Shares]:
        """Return in which share of the week's stores a product was promoted, by product and place.

        In steps of .05: so coarse a share changes seldom, and what does not change needs no record.
        """
        out: dict[int, Shares] = {}
        product, stores = self.pair & 0xFFFFFFFF, len(np.unique(self.pair >> _SHIFT))
        for channel in ("display", "mailer"):
            there = np.array([f"{channel} 0" not in place for place in self.placement], np.bool_)
            found, count = np.unique(product[there], return_counts=True)
            for each, share in zip(found.tolist(), (count / stores * 20).tolist(), strict=True):
                if steps := round(share):
                    out.setdefault(each, {})[channel] = steps / 20
        return out


@dataclass(frozen=True)
class Promotions:
    """What was promoted, by week."""

    by_week: dict[int, Promoted]

    @classmethod
    def read(cls, path: Path, first: int, last: int) -> Self:
        """Read the weeks out of 20.9 M rows, in batches to hold only what is asked for."""
        found: dict[int, list[tuple[Ints, pa.Table]]] = {w: [] for w in range(first, last + 1)}
        columns = ["week", "store_id", "product_id", *_PLACES]
        for batch in pq.ParquetFile(path).iter_batches(1 << 20, columns=columns):
            week, store, product = (batch[name].to_numpy() for name in columns[:3])
            for number in range(max(first, int(week.min())), min(last, int(week.max())) + 1):
                rows = np.flatnonzero(week == number)
                places = pa.table({name: batch[name].take(rows) for name in _PLACES})
                found[number].append((_pair(store[rows], product[rows]), places))
        return cls({week: _promoted(parts) for week, parts in found.items()})

    def of(self, week: int) -> Promoted:
        """Return what the week promoted."""
        return self.by_week[week]


def _promoted(parts: list[tuple[Ints, pa.Table]]) -> Promoted:
    """Join what batches hold of a week; of a pair that stands twice the first counts."""
    pair, first = np.unique(
        np.concatenate([np.empty(0, np.int64), *(p for p, _ in parts)]), return_index=True
    )
    if not len(pair):
        return Promoted(pair, np.empty(0, np.object_))
    places = pa.concat_tables([t for _, t in parts])
    display, mailer = (places[name] for name in _PLACES)
    join: Any = pc.binary_join_element_wise
    words = join("display", display, "mailer", mailer, " ")
    return Promoted(pair, words.take(first).to_numpy())


def exposures(purchases: Purchases, promoted: Promoted, shift_ms: int) -> Shown:
    """Make one exposure for each household and store with at least one promoted item bought.

    Sampling is seeded by the week, so a week gives the same exposures whatever is loaded with it.
    """
    answered = _is_in(_pair(purchases.store, purchases.product), promoted.pair)
    visits = _pair(purchases.household, purchases.store)[answered]
    visit, group = np.unique(visits, return_inverse=True)
    bought = _distinct(_pair(group.astype(np.int64), purchases.product[answered]))
    generator = np.random.default_rng([SEED, purchases.week])
    others = _sample(bought, visit & 0xFFFFFFFF, promoted.pair, generator)
    shown = np.concatenate([bought, others])
    shown = shown[np.lexsort((generator.random(len(shown)), shown >> _SHIFT))]
    ts = week_start_ms(purchases.week) + shift_ms
    place = np.searchsorted(
        promoted.pair, _pair((visit & 0xFFFFFFFF)[shown >> _SHIFT], shown & 0xFFFFFFFF)
    )
    placements = promoted.placement[place].tolist()
    return Shown(_records(purchases.week, visit, shown, placements, ts), answered)


def _pair(high: Ints, low: Ints) -> Ints:
    return (high << _SHIFT) | low


# np.unique and np.isin hash int64, which takes several times as long as sorting does here.


def _distinct(values: Ints) -> Ints:
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _is_in(values: Ints, ordered: Ints) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(ordered, values)
    found: npt.NDArray[np.bool_] = np.append(ordered, -1)[place] == values
    return found


def _sample(bought: Ints, stores: Ints, promoted: Ints, generator: np.random.Generator) -> Ints:
    """Draw up to four promoted items a bought one, not bought; pairs of group and product."""
    wanted = NEGATIVES * np.bincount(bought >> _SHIFT, minlength=len(stores))
    start = np.searchsorted(promoted, stores << _SHIFT)
    end = np.searchsorted(promoted, (stores + 1) << _SHIFT)
    draws = wanted + wanted // 4 + _SPARE_DRAWS
    group = np.repeat(np.arange(len(stores)), draws)
    place = start[group] + (generator.random(len(group)) * (end - start)[group]).astype(np.int64)
    drawn = _pair(group, promoted[place] & 0xFFFFFFFF)
    order = np.argsort(drawn, kind="stable")
    first_draw = order[np.diff(drawn[order], prepend=-1) > 0]
    drawn = drawn[np.sort(first_draw)]
    drawn = drawn[~_is_in(drawn, bought)]
    counts = np.bincount(drawn >> _SHIFT, minlength=len(stores))
    rank = np.arange(len(drawn)) - np.repeat(np.cumsum(counts) - counts, counts)
    sample: Ints = drawn[rank < wanted[drawn >> _SHIFT]]
    return sample


def _records(week: int, visit: Ints, shown: Ints, placements: list[str], ts: int) -> list[Record]:
    counts = np.bincount(shown >> _SHIFT, minlength=len(visit))
    bounds = np.concatenate([[0], np.cumsum(counts)]).tolist()
    products = [str(product) for product in (shown & 0xFFFFFFFF).tolist()]
    items = list(zip(products, placements, strict=True))
    households, stores = (visit >> _SHIFT).tolist(), (visit & 0xFFFFFFFF).tolist()
    return [
        Record(
            b"%d" % household,
            encode(
                Exposure(
                    request_id=request_id(week, household, store),
                    user_id=str(household),
                    ts=ts,
                    model_version=0,
                    policy=POLICY,
                    items=[
                        ExposedItem(
                            item_id=product,
                            position=position,
                            score=0.0,
                            propensity=1.0,
                            placement=placement,
                        )
                        for position, (product, placement) in enumerate(items[start:end], 1)
                    ],
                    context=context(store, week),
                )
            ),
            ts,
        )
        for household, store, (start, end) in zip(households, stores, pairwise(bounds), strict=True)
    ]
