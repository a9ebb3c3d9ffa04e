"""Items that the version in service has not learned: which texts are to be encoded, and vectors."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ray_rec.features.catalogue import Catalogue

Float32 = npt.NDArray[np.float32]


class ColdTexts:
    """Rows that wait for a vector, and the raw vector [text_dim] of each encoded text.

    Use it under the lock that guards the catalogue.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._waiting: set[int] = set()
        self._vectors: dict[str, Float32] = {}

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._waiting)

    def touch(self, rows: Iterable[int]) -> None:
        """Let rows wait whose text is new or changed; rows without a text are passed over."""
        self._waiting.update(row for row in rows if self._catalogue.text(row))

    def settle(self, rows: Iterable[int]) -> None:
        """Let rows wait no more: they are placed, or the version knows them."""
        self._waiting.difference_update(rows)

    def waiting(self) -> list[int]:
        """Return the waiting rows, ascending."""
        return sorted(self._waiting)

    def missing(self, limit: int) -> list[str]:
        """Return up to `limit` distinct texts of waiting rows that have no vector yet."""
        texts = (self._catalogue.text(row) for row in self.waiting())
        distinct = dict.fromkeys(text for text in texts if text not in self._vectors)
        return list(distinct)[:limit]

    def add(self, texts: Sequence[str], vectors: Float32) -> None:
        """Take the raw vectors [n, text_dim] of texts."""
        self._vectors.update(zip(texts, np.asarray(vectors, np.float32), strict=True))

    def known(self, rows: Iterable[int]) -> dict[int, Float32]:
        """Return the vectors of those rows whose text has one."""
        texts = ((row, self._catalogue.text(row)) for row in rows)
        return {row: self._vectors[text] for row, text in texts if text in self._vectors}

    def keep(self, rows: Iterable[int]) -> None:
        """Drop vectors that none of these rows has any more: the version has learned them."""
        texts = {self._catalogue.text(row) for row in rows}
        self._vectors = {text: v for text, v in self._vectors.items() if text in texts}

    def encoded(self, unless: Collection[str | None]) -> list[str]:
        """Return the distinct texts that have a vector, `unless` of these items alone."""
        ids = enumerate(self._catalogue.item_id)
        texts = (self._catalogue.text(row) for row, item_id in ids if item_id not in unless)
        return list(dict.fromkeys(text for text in texts if text in self._vectors))

    def renew(self, vectors: Mapping[str, Float32]) -> None:
        """Replace all vectors [text_dim] by those, by text, of another encoder."""
        self._vectors = dict(vectors)
