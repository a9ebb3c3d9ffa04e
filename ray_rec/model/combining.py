"""Several models' scores as one: averaged, voted on, or weighted by what a validation stretch says.

Shapes: M models, Q queries, N items, T targets, K shown items.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ray_rec.errors import ConfigError
from ray_rec.features.arrays import AnyArray, Float32, Int64

Combine = Literal["score-average", "rank-vote", "stacking"]

_RIDGE = 1e-3
"""Pull of each weight towards an even share: models that say the same share evenly."""
_ROUNDS = 100


def check_combine(how: str) -> None:
    """Raise ConfigError for a way that is not known."""
    if how not in get_args(Combine):
        known = ", ".join(get_args(Combine))
        raise ConfigError(f"no way {how!r} to combine models; known are {known}")


def borda(scores: AnyArray) -> Float32:
    """Return the share of the other items that each item beats, float32 of the shape [..., N].

    An equal one counts half (Borda 1770); the mean over voters is the vote.

    >>> borda(np.float32([[3.0, 1.0, 2.0], [5.0, 5.0, 0.0]])).tolist()
    [[1.0, 0.0, 0.5], [0.75, 0.75, 0.0]]
    """
    rows = scores.reshape(-1, scores.shape[-1])
    out = np.empty(rows.shape, np.float32)
    for at, row in enumerate(rows):
        ordered = np.sort(row)
        below = np.searchsorted(ordered, row, "left")
        upto = np.searchsorted(ordered, row, "right")
        out[at] = (below + upto - 1) / (2 * max(1, len(row) - 1))
    return out.reshape(scores.shape)


def together(scores: Sequence[AnyArray], combine: Combine, weights: Float32) -> Float32:
    """Return the members' scores [..., N] as one: their weighted sum, or that of their votes."""
    parts = [borda(part) if combine == "rank-vote" else part for part in scores]
    return weighted(parts, weights)


def weighted(parts: Sequence[AnyArray], weights: Float32) -> Float32:
    """Return the sum of parts of one shape, each times its weight."""
    out = parts[0] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out = out + part * weight
    return np.asarray(out, np.float32)


def recall_weights(scores: Float32, query: Int64, target: Int64) -> Float32:
    """Return the weights [M], none negative, under which softmax tells the targets best.

    Args:
        scores: of each model, [M, Q, N].
        query: of each target, [T] into Q.
        target: the items that came, [T].

    Stacking (Wolpert 1992) by the conditional logit of what was taken, with a slight ridge.
    """
    parts = torch.from_numpy(np.ascontiguousarray(scores))
    asked, wanted = torch.from_numpy(query), torch.from_numpy(target)

    def loss(weight: Tensor) -> Tensor:
        total = torch.einsum("m,mqn->qn", weight.to(parts.dtype), parts)
        return (torch.logsumexp(total, 1)[asked] - total[asked, wanted]).double().mean()

    return _fitted(loss, len(parts))


def click_weights(logits: Float32, labels: Float32) -> Float32:
    """Return the weights [M], none negative, under which a sum of logits tells the labels best.

    Args:
        logits: of each model, [M, K].
        labels: 0 or 1, [K].

    Stacking by logistic regression without an intercept, with a slight ridge.
    """
    parts, wanted = torch.from_numpy(logits).double(), torch.from_numpy(labels).double()

    def loss(weight: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(weight @ parts, wanted)

    return _fitted(loss, len(parts))


def _fitted(loss: Callable[[Tensor], Tensor], num_models: int) -> Float32:
    """Return the weights of least loss; they are squares, so that none is negative."""
    even = 1 / num_models
    root = torch.full((num_models,), even**0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([root], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        weight = root.square()
        whole = loss(weight) + _RIDGE * (weight - even).square().sum()
        torch.autograd.backward(whole)
        return whole

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # LBFGS is untyped
    return root.detach().square().float().numpy()
