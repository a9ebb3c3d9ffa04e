"""From the vectors of a text's tokens to one vector."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "last-token", "cls"]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector a text, [n, dim].

    Args:
        hidden: [n, tokens, dim].
        mask: [n, tokens], 1 for the tokens of a text, which come first, and 0 for padding.
        pooling: the mean over tokens; the last one, which alone has seen all others in a decoder;
            or the first, which BERT trains to stand for the text.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last-token":
        last = (mask.sum(1) - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weight = mask[..., None].float()
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
