"""SASRec with a softmax over the catalogue: the sequence model to beat.

Kang and McAuley 2018, with the whole catalogue in the place of one negative a position, which alone
is worth a quarter or more (Klenitskiy and Vasilev 2023). Items are known by id, or by text alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.questions import Interactions, Queries, joined
from ray_rec.evaluation.rankers.neighbours import fit_texts
from ray_rec.features.arrays import AnyArray, Int64, first_of_groups
from ray_rec.model.text import Vectors

_PADDING = -1
_COUNTS = ("dim", "blocks", "heads", "text_dim", "tower_dim", "length", "batch", "epochs")


@dataclass(frozen=True)
class SasRecConfig:
    """The recipe: sizes, and one pass of a one-cycle schedule over all epochs.

    `length` bounds the items a sequence is predicted from; `text_dim` and `tower_dim` are of the
    tower that stands for ids where items are known by text.
    """

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.3
    length: int = 50
    batch: int = 128
    epochs: int = 10
    peak: float = 3e-3
    warmup: float = 0.1
    decay: float = 0.01
    clip: float = 5.0
    text_dim: int = 192
    tower_dim: int = 128

    def __post_init__(self) -> None:
        """Check every value; raise ConfigError naming the first that is wrong."""
        for key in _COUNTS:
            if getattr(self, key) < 1:
                raise ConfigError(f"sasrec {key} is {getattr(self, key)}; it must be at least 1")
        if self.dim % self.heads:
            raise ConfigError(f"sasrec dim {self.dim} must be a multiple of heads {self.heads}")


class Network(nn.Module):
    """Pre-norm causal transformer over item vectors; the same vectors give the logits.

    Args:
        config: sizes.
        num_items: N.
        texts: whitened texts [N, text_dim] that items are known by; None: by id.
    """

    def __init__(self, config: SasRecConfig, num_items: int, texts: Tensor | None) -> None:
        super().__init__()
        dim = config.dim
        self.register_buffer("texts", texts)
        if texts is None:
            self.items: nn.Module = nn.Embedding(num_items, dim)
            nn.init.normal_(self.items.weight, std=0.02)
        else:
            hidden = nn.Linear(config.text_dim, config.tower_dim)
            self.items = nn.Sequential(hidden, nn.GELU(), nn.Linear(config.tower_dim, dim))
        self.position = nn.Embedding(config.length, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        block = nn.TransformerEncoderLayer(
            dim, config.heads, 4 * dim, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(
            block, config.blocks, nn.LayerNorm(dim), enable_nested_tensor=False
        )

    def table(self) -> Tensor:
        """Return the vector of each item, [N, dim]."""
        inputs = self.texts if self.texts is not None else torch.arange(self.items.num_embeddings)
        vectors: Tensor = self.items(inputs)
        return vectors

    def forward(self, sequence: Tensor, table: Tensor) -> Tensor:
        """Return the state after each item, [B, L, dim]; padding at the end changes nothing.

        Args:
            sequence: items [B, L], oldest first.
            table: vectors of all items [N, dim].
        """
        length = sequence.shape[1]
        x = table[sequence.clamp(min=0)] * math.sqrt(table.shape[1])
        x = self.dropout(x + self.position.weight[:length])
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        states: Tensor = self.trunk(x, mask=mask, is_causal=True)
        return states


class SasRec:
    """Items by the log-probability that they come next after the newest ones of a history.

    An item that was never learned is no negative; known by id, it scores as the least likely one.
    Without history all items score 0.

    Args:
        config: the recipe.
        raw: vector of each item's text, [N, raw_dim], by which alone items are known; None: by id.
        seed: of weights, order and dropout.
    """

    def __init__(
        self, config: SasRecConfig | None = None, raw: Vectors | None = None, seed: int = 0
    ) -> None:
        self.name = "sasrec" if raw is None else "sasrec-text"
        self._config, self._raw, self._seed = config or SasRecConfig(), raw, seed
        self._parts: list[Interactions] = []
        self._trained: tuple[Network, Tensor, Tensor] | None = None

    def scores(self, queries: Queries) -> AnyArray:
        """Return log-probabilities."""
        if self._trained is None:
            self._trained = self._train(queries.num_items)
        network, table, unlearned = self._trained
        length = self._config.length
        taken = [history.item[-length:] for history in queries.histories]
        sizes = torch.tensor([len(items) for items in taken])
        sequence = _padded(taken)
        with torch.inference_mode():
            last = network(sequence, table)[torch.arange(len(sizes)), (sizes - 1).clamp(min=0)]
            logits = last @ table.T
            if self._raw is None:
                least = logits.amin(1, keepdim=True)
                logits = torch.where(unlearned, least, logits)
            return (torch.log_softmax(logits, 1) * (sizes > 0)[:, None]).numpy()

    def observe(self, done: Interactions) -> None:
        """Remember; the next question trains a new network on everything so far.

        The same interactions are taken once, whether they come from the harness or an `Average`.
        """
        if not any(part is done for part in self._parts):
            self._parts.append(done)
            self._trained = None

    def _train(self, num_items: int) -> tuple[Network, Tensor, Tensor]:
        """Return the network, its item vectors [N, dim], and which items were never learned [N]."""
        done = joined(self._parts)
        learned = np.zeros(num_items, np.bool_)
        learned[done.item] = True
        texts = None
        if self._raw is not None:
            texts = fit_texts(self._raw, learned, self._config.text_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = Network(self._config, num_items, texts)
            self._learn(network, sequences(done, self._config.length + 1), learned)
        network.eval()
        with torch.inference_mode():
            return network, network.table(), torch.from_numpy(~learned)

    def _learn(self, network: Network, taken: list[Int64], learned: AnyArray) -> None:
        """Take all epochs; nothing where no sequence has two items."""
        config, generator = self._config, np.random.default_rng(self._seed)
        epochs = [list(batches(taken, config.batch, generator)) for _ in range(config.epochs)]
        steps = [batch for epoch in epochs for batch in epoch]
        if not steps:
            return
        rows = torch.from_numpy(np.flatnonzero(learned))
        column = torch.from_numpy(np.cumsum(learned) - 1)
        optimizer = optim.AdamW(network.parameters(), config.peak, weight_decay=config.decay)
        # a warm-up of one step has no length, by which torch would divide
        warmup = max(config.warmup, 2 / len(steps)) if len(steps) > 2 else 0.0
        schedule = optim.lr_scheduler.OneCycleLR(
            optimizer, config.peak, total_steps=len(steps), pct_start=warmup
        )
        for batch in steps:
            sequence, target = batch[:, :-1], batch[:, 1:]
            asked, table = target != _PADDING, network.table()
            states = network(sequence, table)[asked]
            loss = functional.cross_entropy(states @ table[rows].T, column[target[asked]])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
            schedule.step()


class Average:
    """The mean of two models' scores: what simply adding a second one is worth."""

    name = "two-model-average"

    def __init__(self, first: SasRec, second: SasRec) -> None:
        self._members = (first, second)

    def scores(self, queries: Queries) -> AnyArray:
        """Return the mean of the log-probabilities."""
        first, second = (member.scores(queries) for member in self._members)
        mean: AnyArray = (first + second) / 2
        return mean

    def observe(self, done: Interactions) -> None:
        """Let both learn."""
        for member in self._members:
            member.observe(done)


def sequences(done: Interactions, most: int) -> list[Int64]:
    """Return each user's items, oldest first, in pieces of at most `most`.

    Pieces share one item, so that each item but a user's first is predicted once; a single item
    is no sequence.

    >>> ids = np.array([7, 7, 7, 7, 8])
    >>> done = Interactions(ids, np.arange(5), np.arange(5), np.zeros(5, int))
    >>> [piece.tolist() for piece in sequences(done, 3)]
    [[1, 2, 3], [0, 1]]
    """
    bounds = [*first_of_groups(done.user).tolist(), len(done.user)]
    out = []
    for start, end in pairwise(bounds):
        for last in range(end, start + 1, 1 - most):
            out.append(done.item[max(start, last - most) : last])
    return out


def batches(taken: list[Int64], size: int, generator: np.random.Generator) -> Iterator[Tensor]:
    """Yield all sequences once, [B, L] padded, those of like length together, in random order."""
    lengths = np.array([len(items) for items in taken])
    order = np.lexsort((generator.random(len(taken)), lengths))
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    for place in generator.permutation(len(groups)).tolist():
        yield _padded([taken[row] for row in groups[place].tolist()])


def _padded(taken: Sequence[AnyArray]) -> Tensor:
    """Return items as int64 [B, L], L at least 1, padded at the end."""
    out = np.full((len(taken), max(1, *map(len, taken))), _PADDING)
    for row, items in enumerate(taken):
        out[row, : len(items)] = items
    return torch.from_numpy(out)
