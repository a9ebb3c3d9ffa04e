"""A text encoder while it learns with the network: its vectors in a step, and what is kept of it.

Only some of a step's texts are encoded anew, as the encoder costs far more than the network; which
ones, their hash decides, so that all workers draw alike. The others keep the vectors that the item
tables hold, made by the encoder as it was at the last version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from ray_rec.features.arrays import Float32, mix
from ray_rec.features.text_augment import InTurn, TextTransform
from ray_rec.model.encoder import TextEncoder, put
from ray_rec.model.items import ItemSlice
from ray_rec.model.ranks import Ranks
from ray_rec.model.servable import tensors_under
from ray_rec.training.optimizer import ENCODER
from ray_rec.training.texts import Texts

RANKS, TEXTS, SHIFT = "ranks.", "encoder_texts", "encoder_shift."
_OF_TEXTS = 1
"""Tells this draw from others over the same window, step and numbers of rows."""
_WATCHED, _WATCH_STEPS = 32, 4
"""Texts, the first ones, whose mean is looked at after each so many steps."""


class Tuner:
    """The encoder of a learner.

    Dropout stays off: vectors made anew stand beside those of the tables, which were made so. What
    learning gives all texts in common is taken away from them again, as the whitening would: it
    comes fast, tells nothing, and makes any two alike.

    Args:
        encoder: one whose policy lets it learn.
        texts: which texts the tables hold, and how they are whitened.
        share: of a step's texts that are encoded anew.
        mixed: whether under bfloat16 autocast.
        wording: puts the texts that are learned from in other words, by the number of the window.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        texts: Texts,
        share: float,
        mixed: bool,
        wording: TextTransform | None = None,
    ) -> None:
        self._encoder, self._texts, self._wording = encoder, texts, wording or InTurn(())
        self._share, self._mixed = share, mixed
        self._by_row: list[str] = []
        self._ranks = Ranks(encoder.model) if encoder.config.policy == "adalora" else None
        self._watched, self._origin, self._shift = 0, torch.zeros(()), torch.zeros(())

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what learns, by names that the network's own do not have."""
        return {f"{ENCODER}{name}": p for name, p in self._encoder.parameters().items()}

    def note(self, texts: Sequence[str], rows: Tensor) -> None:
        """Remember the texts of rows of the tables; new rows come in ascending order."""
        for text, row in zip(texts, rows.tolist(), strict=True):
            if row == len(self._by_row):
                self._by_row.append(text)
        if not self._watched:
            self._settle()

    def live(self, items: ItemSlice, text_row: Tensor, number: int, step: int) -> ItemSlice:
        """Return the items of a step with some of their texts as the encoder sees them now.

        `text_row` [U] is the row of each item's text.
        """
        rows: list[int] = torch.unique(text_row).tolist()
        place = {row: at for at, row in enumerate(rows) if self._by_row[row]}
        drawn = sorted(self._drawn(list(place), number, step), key=lambda r: len(self._by_row[r]))
        if not drawn:
            return items
        size = self._encoder.config.batch_size
        pieces = [drawn[at : at + size] for at in range(0, len(drawn), size)]
        told = [self._wording([self._by_row[row] for row in piece], number) for piece in pieces]
        raw = torch.cat([self._encoder.vectors(texts, self._mixed) for texts in told])
        white = self._texts.whitened(raw - self._shift).to(items.text)
        index = torch.tensor([place[row] for row in drawn], device=items.text.device)
        return replace(items, text=items.text.index_put((index,), white))

    def _drawn(self, rows: list[int], number: int, step: int) -> list[int]:
        if self._share >= 1:
            return rows
        parts = [np.array([part]) for part in (number, step, _OF_TEXTS)]
        below = mix(*parts, np.array(rows, np.int64)) < np.uint64(self._share * 2**64)
        return [row for row, drawn in zip(rows, below.tolist(), strict=True) if drawn]

    def constrain(self) -> None:
        """Add to the gradients of all workers what the policy itself asks, alike on each."""
        if self._ranks is not None:
            torch.autograd.backward(self._ranks.penalty())

    def stepped(self, number: int) -> None:
        """Do what the policy asks after step `number` (from 1), while its gradients are there."""
        if self._ranks is not None:
            self._ranks.step(number)
        if self._watched and not number % _WATCH_STEPS:
            self._shift = self._mean() - self._origin

    def encode(self) -> Float32:
        """Return raw vectors [texts, raw_dim] of all rows, as the encoder makes them now.

        From here on these are what shifts are told from.
        """
        self._settle()
        return self._encoder.encode(self._by_row)

    def _settle(self) -> None:
        self._watched = len([text for text in self._by_row if text][:_WATCHED])
        if self._watched:
            self._origin = self._mean()
            self._shift = torch.zeros_like(self._origin)

    @torch.no_grad()
    def _mean(self) -> Tensor:
        """Return the mean vector [raw_dim] of the watched texts, as the encoder makes them now."""
        texts = [text for text in self._by_row if text][: self._watched]
        return self._encoder.vectors(texts, self._mixed).mean(0)

    def state(self) -> dict[str, Tensor]:
        """Return what `load` needs, by flat names."""
        ranks = self._ranks.state() if self._ranks is not None else {}
        texts = torch.frombuffer(bytearray(msgspec.json.encode(self._by_row)), dtype=torch.uint8)
        named = {f"{RANKS}{name}": tensor for name, tensor in ranks.items()}
        shift = {"watched": torch.tensor(self._watched), "origin": self._origin, "now": self._shift}
        named |= {f"{SHIFT}{name}": tensor for name, tensor in shift.items()}
        return {**self.parameters(), **named, TEXTS: texts}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        put(self._encoder.parameters(), tensors_under(state, ENCODER))
        self._by_row = msgspec.json.decode(state[TEXTS].numpy().tobytes(), type=list[str])
        shift = tensors_under(state, SHIFT)
        device = next(iter(self._encoder.parameters().values())).device
        self._watched = int(shift["watched"])
        self._origin, self._shift = (shift[name].to(device) for name in ("origin", "now"))
        if self._ranks is not None:
            self._ranks.load(tensors_under(state, RANKS))
