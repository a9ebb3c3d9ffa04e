"""The causal transformer over what a user did last; a learned start stands for an empty history.

Shapes: B rows, L tokens, d dimensions. The output at place c is what a query sees that knows the
first c tokens: it never depends on later ones.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.model.config import ModelConfig
from ray_rec.model.view import CALENDAR, calendar

NUM_GAPS = 32
_SECOND_MS = 1000.0


def gap_bucket(gap_ms: Tensor) -> Tensor:
    """Return the bucket of a time gap, log2 of its seconds: int64, 0 (none) to 31 (34 years).

    >>> gap_bucket(torch.tensor([-5, 0, 1_000, 3_000, 86_400_000])).tolist()
    [0, 0, 1, 2, 16]
    """
    seconds = gap_ms.clamp(min=0).double() / _SECOND_MS
    return torch.log2(1 + seconds).long().clamp(max=NUM_GAPS - 1)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each around a residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x_BLd: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; place l sees places up to l."""
        q, k, v = (self._split(part) for part in self.qkv(self.norm_1(x_BLd)).chunk(3, dim=2))
        rate = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        return self._rest(x_BLd, mixed)

    def at(self, x_BLd: Tensor, row_Q: Tensor, place_Q: Tensor) -> Tensor:
        """Return what `forward` has at some places only, [Q, d], for a share of the work."""
        dim, normed = x_BLd.shape[2], self.norm_1(x_BLd)
        weight, bias = self.qkv.weight, self.qkv.bias
        asks = functional.linear(normed[row_Q, place_Q], weight[:dim], bias[:dim])[:, None]
        keys, values = functional.linear(normed, weight[dim:], bias[dim:])[row_Q].chunk(2, dim=2)
        q, k, v = self._split(asks), self._split(keys), self._split(values)
        places = torch.arange(x_BLd.shape[1], device=place_Q.device)
        seen = (places <= place_Q[:, None])[:, None, None]
        rate = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=rate)
        return self._rest(x_BLd[row_Q, place_Q][:, None], mixed)[:, 0]

    def _split(self, x_BLd: Tensor) -> Tensor:
        """[B, L, d] to [B, heads, L, d / heads]."""
        batch, length, dim = x_BLd.shape
        return x_BLd.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def _rest(self, x_BLd: Tensor, mixed: Tensor) -> Tensor:
        x_BLd = x_BLd + self._drop(self.out(mixed.transpose(1, 2).reshape(x_BLd.shape)))
        fed = self.down(functional.gelu(self.up(self.norm_2(x_BLd))))
        return x_BLd + self._drop(fed)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Trunk(nn.Module):
    """Tokens of (item vector, event type, gap to the token before) to states; see the module."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.dropout = config.dropout
        self.start = nn.Parameter(torch.zeros(dim))
        self.kind = nn.Embedding(config.num_types, dim)
        self.gap = nn.Embedding(NUM_GAPS, dim)
        self.place = nn.Embedding(config.max_length + 1, dim)
        self.query_gap = nn.Embedding(NUM_GAPS, dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(dim)
        for table in (self.kind, self.gap, self.place, self.query_gap):
            nn.init.normal_(table.weight, std=0.02)
        self.moment = nn.Linear(CALENDAR, dim, bias=False) if config.calendar else None

    def forward(
        self, vector_BLd: Tensor, type_BL: Tensor, ts_BL: Tensor, row_Q: Tensor, place_Q: Tensor
    ) -> Tensor:
        """Return states [Q, d] of places in rows: 0 is the start, place c has seen c tokens."""
        gap_BL = torch.diff(ts_BL, dim=1, prepend=ts_BL[:, :1])
        x_BLd = vector_BLd + self.kind(type_BL) + self.gap(gap_bucket(gap_BL))
        start_B1d = self.start.expand(len(x_BLd), 1, -1)
        x_BLd = torch.cat([start_B1d, x_BLd], dim=1)
        x_BLd = x_BLd + self.place.weight[: x_BLd.shape[1]]
        x_BLd = functional.dropout(x_BLd, self.dropout, self.training)
        *blocks, last = (cast(Block, block) for block in self.blocks)
        for block in blocks:
            x_BLd = block(x_BLd)
        return last.at(x_BLd, row_Q, place_Q)

    def query(
        self, state_Qd: Tensor, since_ms_Q: Tensor, known_Q: Tensor, at_ms_Q: Tensor
    ) -> Tensor:
        """Return user vectors [Q, d] from states, the time since the last token (if `known`) and
        the moment asked.
        """
        state_Qd = state_Qd + self.query_gap(gap_bucket(since_ms_Q)) * known_Q[:, None]
        if self.moment is not None:
            state_Qd = state_Qd + self.moment(calendar(at_ms_Q, state_Qd.dtype))
        return cast(Tensor, self.norm(state_Qd))
