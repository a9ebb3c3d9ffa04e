"""Adversarial training on the text path: FGM (Miyato et al. 2017).

A step also learns from its items with texts moved a little in the direction in which its loss rises
fastest. Each worker moves them by the gradient of its own rows, so the steps of two workers are not
those of one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ray_rec.model.items import ItemSlice

T = TypeVar("T")


def with_adversary(
    losses: Callable[[ItemSlice], tuple[Tensor, T]],
    items: ItemSlice,
    epsilon: float,
    weight: float = 1.0,
) -> tuple[Tensor, T]:
    """Return loss + weight · the loss at moved texts, and what `losses` says of those as they are.

    The move itself is a constant: gradients flow as through the texts, to an encoder that made them
    too, and to `items.id`.

    Args:
        losses: the loss of a step as a function of its items, and anything beside it.
        items: as the step sees them.
        epsilon: how far each text is moved, as a share of its own length; 0 asks `losses` once.
        weight: of the loss at moved texts.
    """
    if not epsilon:
        return losses(items)
    text = items.text if items.text.requires_grad else items.text.clone().requires_grad_()
    loss, beside = losses(replace(items, text=text))
    (gradient,) = torch.autograd.grad(loss, text, retain_graph=True)
    moved = text + uphill(text.detach(), gradient, epsilon)
    return loss + weight * losses(replace(items, text=moved))[0], beside


def uphill(text: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    """Return by how much each of texts [V, text_dim] is moved along its gradient [V, text_dim].

    A text without a gradient stays, and so does none at all (zeros).
    """
    length: Tensor = torch.linalg.vector_norm(text, dim=1, keepdim=True)
    return epsilon * length * functional.normalize(gradient, dim=1)
