"""Products of Complete Journey as `items`: register abbreviations turned into readable text."""

import re
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec.structs import replace

from ray_rec.events.parse import encode
from ray_rec.events.schema import Item, Record

Shares = dict[str, float]
"""How far something is promoted, by channel."""

_WORD = re.compile(r"[A-Z0-9$%&'.]+")
_FULL_WORDS = {
    "BEERALEMALT": "beer, ale and malt",
    "BTL": "bottle",
    "BRKFST": "breakfast",
    "CARB": "carbonated",
    "CHOC": "chocolate",
    "CRYSTL": "crystal",
    "CNTRL": "central",
    "DRNK": "drink",
    "DRNKS": "drinks",
    "FRE": "fresh",
    "FRZN": "frozen",
    "GM": "general merchandise",
    "HOUSEHLD": "household",
    "MISC": "miscellaneous",
    "MX": "mix",
    "PCKGD": "packaged",
    "PKGD": "packaged",
    "PWDR": "powder",
    "REFRGRATD": "refrigerated",
    "REFRIG": "refrigerated",
    "SFT": "soft",
    "SPECILATY": "specialty",
    "SPLY": "supply",
    "VEGTBLE": "vegetable",
    "WTR": "water",
    "WHT": "white",
}


@cache
def tidy(text: str) -> str:
    """Return register text as people write it, the commonest abbreviations in full.

    >>> tidy("FRZN BREAKFAST FOODS"), tidy("BREAD:ITALIAN/FRENCH"), tidy("ICE - CRUSHED/CUBED")
    ('Frozen breakfast foods', 'Bread: italian/french', 'Ice - crushed/cubed')
    """
    words = _WORD.sub(lambda word: _FULL_WORDS.get(word[0], word[0].lower()), text)
    spaced = re.sub(r"\s+", " ", re.sub(r"\s*([:,])\s*", r"\1 ", words)).strip()
    return spaced[:1].upper() + spaced[1:]


class Products:
    """The package's table `products` as `items`.

    The title is the product type, the category department and category; the package size is only
    described, because text encoders gain nothing from it. The price is the median unit price paid
    in the purchases `bought_before`, absent where there is none.
    """

    def __init__(self, table: pa.Table, bought_before: pa.Table) -> None:
        prices = _median_prices(bought_before)
        names = ("product_id", "product_type", "product_category", "department", "brand")
        columns = [table[name].to_pylist() for name in (*names, "package_size")]
        self._items = {
            product: Item(
                item_id=str(product),
                title=tidy(kind or category or department),
                ts=1,
                category=_path(department, category),
                brand=brand,
                price=prices.get(product),
                description=size,
            )
            for product, kind, category, department, brand, size in zip(*columns, strict=True)
        }

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def records(self, ts: int, promoted: Mapping[int, Shares | None]) -> list[Record]:
        """Encode products that are promoted so far from a time (ms) on, in order."""
        return [
            Record(b"%d" % product, encode(replace(item, ts=ts, promotion=shares)), ts)
            for product, shares in promoted.items()
            if (item := self._items.get(product))
        ]


@cache
def _path(department: str, category: str | None) -> str:
    return f"{tidy(department)} / {tidy(category)}" if category else tidy(department)


def _median_prices(bought: pa.Table) -> dict[int, float]:
    """Return the median unit price by product, where something was paid for whole units."""
    quantity, value = bought["quantity"].to_numpy(), bought["sales_value"].to_numpy()
    paid = (quantity > 0) & (value > 0)
    product = bought["product_id"].to_numpy()[paid]
    price: npt.NDArray[np.float64] = value[paid] / quantity[paid]
    order = np.lexsort((price, product))
    found, first, count = np.unique(product[order], return_index=True, return_counts=True)
    median = np.round(price[order][first + (count - 1) // 2], 2)
    return dict(zip(found.tolist(), median.tolist(), strict=True))
