"""The two losses: softmax (exact or sampled) or binary for recall, binary for clicks."""

import torch
from torch import Tensor
from torch.nn import functional


def softmax_loss(target_T: Tensor, others_TC: Tensor) -> Tensor:
    """Return -log softmax of the target among itself and the others, [T]; -inf leaves one out."""
    everything = torch.cat([target_T[:, None], others_TC], dim=1)
    return torch.logsumexp(everything, dim=1) - target_T


def sampled_logits(logits_TC: Tensor, log_expected_C: Tensor, hit_TC: Tensor) -> Tensor:
    """Correct sampled negatives for how often they are drawn (Bengio and Senécal 2008, logQ).

    `log_expected_C` is the logarithm of the number of times an item is expected in the sample;
    `hit_TC` marks what stands in the sum already, which leaves it.
    """
    return (logits_TC - log_expected_C).masked_fill(hit_TC, -torch.inf)


def binary_loss(target_T: Tensor, others_TC: Tensor) -> Tensor:
    """Return the binary cross-entropy of the target against the mean of the others, [T]."""
    kept = torch.isfinite(others_TC)
    negative = functional.softplus(others_TC.masked_fill(~kept, 0.0)) * kept
    mean = negative.sum(1) / kept.sum(1).clamp(min=1)
    return functional.softplus(-target_T) + mean


def click_loss(logits_SO: Tensor, labels_SO: Tensor) -> Tensor:
    """Return the binary cross-entropy of each shown item, the mean over its outcomes, [S]."""
    loss = functional.binary_cross_entropy_with_logits(logits_SO, labels_SO, reduction="none")
    return loss.mean(dim=1)
