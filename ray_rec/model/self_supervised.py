"""What an encoder learns from texts alone: hidden words, and which two views are of one text.

Masked-language modelling (Devlin et al. 2019) and SimCSE (Gao et al. 2021); `adapt` is the loop.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.errors import ConfigError, ModelError
from ray_rec.features.text_augment import TextTransform
from ray_rec.model.encoder import TextEncoder

_HIDDEN, _RANDOM = 0.8, 0.1
"""Of the words to be told: hidden by the mask token, or by any other; the rest is left as it is."""


@dataclass(frozen=True)
class LossOptions:
    """Which losses, and how hard; a weight of 0 leaves a loss out."""

    masked: float = 1.0
    """Weight of the masked-language loss; a decoder has none."""
    contrastive: float = 1.0
    """Weight of the contrastive loss."""
    mask_share: float = 0.15
    """Chance of a word to be one that must be told."""
    temperature: float = 0.05
    """What the cosines of the contrastive loss are divided by."""
    bfloat16: bool = False
    """Whether under bfloat16 autocast."""

    def __post_init__(self) -> None:
        """Check every value; raise ConfigError naming the first that is wrong."""
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}; it must be above 0")
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"mask_share is {self.mask_share}; it must be within 0..1")
        if self.masked < 0 or self.contrastive < 0 or self.masked + self.contrastive == 0:
            raise ConfigError("masked and contrastive must not be negative, nor both 0")


class Lesson:
    """The losses of a batch of texts, and the head that they need."""

    def __init__(self, encoder: TextEncoder, options: LossOptions, augment: TextTransform) -> None:
        self.encoder, self.options, self._augment = encoder, options, augment
        self._head: MaskedHead | None = None
        if options.masked:
            if encoder.tokenizer.mask_token_id is None:
                raise ModelError(
                    "the encoder's tokenizer has no token that hides another, as decoders have "
                    "none; adapt it by the contrastive loss alone (--masked 0)"
                )
            device = next(encoder.model.parameters()).device
            self._head = MaskedHead(_words(encoder)).to(device)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what learns beside the encoder's own parameters, from nothing."""
        return [] if self._head is None else [*self._head.parameters()]

    def losses(self, texts: Sequence[str], draw: int) -> dict[str, Tensor]:
        """Return the mean losses of a batch; dropout and masks are those of the draw."""
        out = {}
        with seeded(draw):
            if self._head is not None:
                out["masked"] = self._masked(texts, self._head)
            if self.options.contrastive:
                out["contrastive"] = self._contrastive(texts, draw)
        return out

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Return their sum by weight."""
        weight = {"masked": self.options.masked, "contrastive": self.options.contrastive}
        return torch.stack([weight[name] * loss for name, loss in losses.items()]).sum()

    def _masked(self, texts: Sequence[str], head: "MaskedHead") -> Tensor:
        encoder = self.encoder
        tokens, mask = encoder.tokens(texts)
        special = torch.tensor(encoder.tokenizer.all_special_ids, device=tokens.device)
        words = mask.bool() & ~torch.isin(tokens, special)
        asked = words & (torch.rand(tokens.shape, device=tokens.device) < self.options.mask_share)
        table = _words(encoder)
        shown = hidden_words(tokens, asked, encoder.tokenizer.mask_token_id, len(table))
        seen = encoder.hidden(shown, mask, self.options.bfloat16)
        logits = head(seen[asked], table)
        wrong = functional.cross_entropy(logits, tokens[asked], reduction="sum")
        return wrong / asked.sum().clamp(min=1)

    def _contrastive(self, texts: Sequence[str], draw: int) -> Tensor:
        views = [
            self.encoder.vectors(self._augment(texts, 2 * draw + side), self.options.bfloat16)
            for side in (0, 1)
        ]
        return view_loss(views[0], views[1], self.options.temperature)


class MaskedHead(nn.Module):
    """From hidden states to words: BERT's head, its last matrix being the table of word vectors.

    A new one each time: an encoder is kept without a head, and has mostly lost the one it had.

    Args:
        table: word vectors [words, width]; they learn as the encoder's policy says.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        width = table.shape[1]
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Return logits [n, words] of hidden states [n, width]."""
        return functional.linear(self.transform(hidden), table, self.bias)


def hidden_words(tokens: Tensor, asked: Tensor, mask_token: int, num_words: int) -> Tensor:
    """Return the tokens [n, length] with those `asked` for hidden, by torch's random numbers.

    Of ten, eight become the mask token, one any word, and one stays.
    """
    chance = torch.rand(tokens.shape, device=tokens.device)
    anything = torch.randint(num_words, tokens.shape, device=tokens.device)
    out = torch.where(asked & (chance < _HIDDEN + _RANDOM), anything, tokens)
    return torch.where(asked & (chance < _HIDDEN), mask_token, out)


def view_loss(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return -log softmax of each text's own other view among all of the batch, the mean.

    Args:
        one: vectors [n, dim].
        other: those of the same texts, seen otherwise.
        temperature: what cosines are divided by.
    """
    one, other = functional.normalize(one, dim=1), functional.normalize(other, dim=1)
    own = torch.arange(len(one), device=one.device)
    return functional.cross_entropy(one @ other.T / temperature, own)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed, and go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _words(encoder: TextEncoder) -> Tensor:
    """Return the table of word vectors [words, width]."""
    return cast(Tensor, cast(Any, encoder.model).get_input_embeddings().weight)
