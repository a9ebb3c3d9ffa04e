"""The two losses: softmax (exact or sampled) or binary for recall, binary for clicks.

T targets of A asking queries, C candidates; a candidate of score -inf is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LossSums:
    """Sums of the two losses over a step's rows, and over how many."""

    recall: Tensor
    recall_weight: int
    click: Tensor
    click_weight: int


def softmax_loss(target_T: Tensor, query_T: Tensor, candidates_AC: Tensor) -> Tensor:
    """Return -log softmax of each target among its query's candidates (it is one of them), [T]."""
    return torch.logsumexp(candidates_AC, dim=1)[query_T] - target_T


def sampled_logits(logits_AC: Tensor, log_chance_C: Tensor) -> Tensor:
    """Correct sampled candidates for their chance to be drawn (logQ: Bengio and Senécal 2008).

    The sum of exp over many draws is then, on average, the sum over all candidates.
    """
    return logits_AC - log_chance_C


def binary_loss(target_T: Tensor, query_T: Tensor, others_AC: Tensor) -> Tensor:
    """Return the binary cross-entropy of the target against the mean of its query's others, [T]."""
    kept = torch.isfinite(others_AC)
    negative = functional.softplus(others_AC.masked_fill(~kept, 0.0)) * kept
    mean = negative.sum(1) / kept.sum(1).clamp(min=1)
    return functional.softplus(-target_T) + mean[query_T]


def click_loss(logits_SO: Tensor, labels_SO: Tensor) -> Tensor:
    """Return the binary cross-entropy of each shown item, the mean over its outcomes, [S]."""
    loss = functional.binary_cross_entropy_with_logits(logits_SO, labels_SO, reduction="none")
    return loss.mean(dim=1)


def ragged(score: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Return scores [P] of ascending rows as [num_rows, longest], -inf where there are fewer."""
    counts = torch.bincount(row, minlength=num_rows)
    place = torch.arange(len(row), device=row.device) - (torch.cumsum(counts, 0) - counts)[row]
    out = score.new_full((num_rows, int(counts.max())), -torch.inf)
    return out.index_put((row, place), score)


def without(drawn: Tensor, row: Tensor, item: Tensor, negative: Tensor, num_items: int) -> Tensor:
    """Return drawn scores [A, C] with -inf where (row, item) is a candidate already."""
    column = torch.full((num_items,), -1, device=negative.device)
    column[negative] = torch.arange(len(negative), device=negative.device)
    twice = column[item]
    hit = torch.zeros(drawn.shape, dtype=torch.bool, device=negative.device)
    hit[row[twice >= 0], twice[twice >= 0]] = True
    return drawn.masked_fill(hit, -torch.inf)
