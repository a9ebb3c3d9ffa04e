"""Which rows of the catalogue may be shown, as masks that are ready when a request comes."""

from typing import cast

import numpy as np
import numpy.typing as npt

from ray_rec.features.catalogue import Catalogue
from ray_rec.serving.answers import Details

Bool = npt.NDArray[np.bool_]


class Shelf:
    """Masks over the catalogue's rows; `changed` drops them, the next request makes them anew.

    Use it under the lock that guards the catalogue. Returned masks are never written to again.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._available: Bool | None = None
        self._categories: dict[str, Bool] = {}

    def changed(self) -> None:
        """Forget what was computed: items came or changed."""
        self._available = None
        self._categories.clear()

    def available(self) -> Bool:
        """Return [N] which rows may be shown."""
        if self._available is None:
            self._available = self._catalogue.available.copy()
        return self._available

    def in_category(self, category: str) -> Bool:
        """Return [N] which rows may be shown and are of this category."""
        mask = self._categories.get(category)
        if mask is None:
            of_it = np.asarray(self._catalogue.category == category, np.bool_)
            mask = self.available() & of_it
            if len(self._categories) < 1000:  # requests choose the names
                self._categories[category] = mask
        return mask


def details_of(catalogue: Catalogue, row: int) -> Details:
    """Return what the catalogue knows of a row."""
    known = {
        "title": catalogue.title[row],
        "category": catalogue.category[row],
        "brand": catalogue.brand[row],
        "price": float(catalogue.price[row]),
    }
    return cast(Details, {k: v for k, v in known.items() if v is not None and v == v})
