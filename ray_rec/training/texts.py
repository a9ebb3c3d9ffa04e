"""Which texts the item tables hold, and the whitening that brought them there."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ray_rec.errors import ModelError
from ray_rec.model.items import ItemTable
from ray_rec.model.servable import WHITENING, tensors_under
from ray_rec.model.text import Whitening

TEXT_KEYS = "text_keys"

Float32 = npt.NDArray[np.float32]


class Texts:
    """Rows of whitened texts in an `ItemTable`, each distinct text once, by its hash."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        self._rows: dict[int, int] = {}
        self._whitening: Whitening | None = None

    def rows(self, texts: Sequence[str], raw: Float32) -> Tensor:
        """Return the row of each text, int64 [n]; new ones are added by their raw vectors.

        The first texts that say anything fit the whitening. An empty text is the zero vector.
        """
        keys = [text_key(text) for text in texts]
        new = {key: at for at, key in enumerate(keys) if key not in self._rows}
        if new:
            vectors = raw[list(new.values())]
            vectors[[key == NO_TEXT for key in new]] = 0.0
            first = self._items.add_texts(self._fitted(vectors).apply(torch.from_numpy(vectors)))
            self._rows.update(zip(new, range(first, first + len(new)), strict=True))
        return torch.tensor([self._rows[key] for key in keys])

    def _fitted(self, vectors: Float32) -> Whitening:
        if self._whitening is None or self._rows.keys() <= {NO_TEXT}:
            width = self._items.text.shape[1]
            self._whitening = Whitening.fit(vectors[vectors.any(1)], width)
        return self._whitening

    def whitened(self, raw: Tensor) -> Tensor:
        """Return raw vectors [n, raw_dim] as the item tables hold them, [n, text_dim]."""
        if self._whitening is None:
            raise ModelError("there is no whitening before the first text; observe items first")
        mean, projection = self._whitening.mean, self._whitening.projection
        return Whitening(mean.to(raw.device), projection.to(raw.device)).apply(raw)

    def renew(self, raw: Float32) -> None:
        """Replace the vectors of all texts by those that raw ones [texts, raw_dim] now give.

        The whitening keeps its axes and moves its centre to where texts are now: what an encoder
        gave all of them in common would else make any two alike.
        """
        said = np.array([key != NO_TEXT for key in self._rows])
        if self._whitening is not None and said.any():
            raw[~said] = 0.0
            centre = torch.from_numpy(raw[said].mean(axis=0))
            self._whitening = replace(self._whitening, mean=centre)
            self._items.renew_texts(self.whitened(torch.from_numpy(raw)))

    def whitening(self) -> dict[str, Tensor]:
        """Return the tensors that a version needs, by flat names; none before the first text."""
        if self._whitening is None:
            return {}
        return {
            f"{WHITENING}mean": self._whitening.mean,
            f"{WHITENING}projection": self._whitening.projection,
        }

    def state(self) -> dict[str, Tensor]:
        """Return what `load` needs beside the item tables."""
        return self.whitening() | {TEXT_KEYS: torch.tensor(list(self._rows), dtype=torch.int64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave; the item tables are loaded apart.

        Raises:
            ModelError: the whitening is for texts of another width.
        """
        white = tensors_under(state, WHITENING)
        if white and white["projection"].shape[1] != self._items.text.shape[1]:
            raise ModelError(
                f"the checkpoint's texts have {white['projection'].shape[1]} components, "
                f"model.text_dim is {self._items.text.shape[1]}; use the checkpoint's configuration"
            )
        self._whitening = Whitening(**white) if white else None
        self._rows = {int(key): row for row, key in enumerate(state[TEXT_KEYS])}


def text_key(text: str) -> int:
    """Return a stable 63-bit key of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


NO_TEXT = text_key("")
