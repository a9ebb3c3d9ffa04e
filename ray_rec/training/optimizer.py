"""Two optimizers: one for the dense part and an encoder that learns, row-wise Adagrad for items."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ray_rec.training.config import LearnerConfig

ENCODER = "encoder."
"""How the names of an encoder's parameters begin, beside those of the network."""

EPSILON = 1e-8

Parameters = Mapping[str, nn.Parameter]


def dense_optimizer(parameters: Parameters, config: LearnerConfig) -> Optimizer:
    """Return the optimizer of parameters by name; each group's `base_lr` is its rate.

    Only matrices decay: no norm, bias or single weight of a head does.
    """
    encoder = [p for name, p in parameters.items() if name.startswith(ENCODER)]
    network = [p for name, p in parameters.items() if not name.startswith(ENCODER)]
    groups = []
    for part, lr in ((network, config.lr), (encoder, config.encoder_lr)):
        matrices, others = [p for p in part if p.ndim > 1], [p for p in part if p.ndim <= 1]
        for group, decay in ((matrices, config.weight_decay), (others, 0.0)):
            if group:
                rates = {"lr": lr, "base_lr": lr, "weight_decay": decay}
                groups.append({"params": group, **rates})
    return _optimizer(groups, config)


def _optimizer(groups: list[dict[str, Any]], config: LearnerConfig) -> Optimizer:
    match config.optimizer:
        case "sgd":
            return torch.optim.SGD(groups)
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "adafactor":
            return torch.optim.Adafactor(groups)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)


def rowwise_adagrad_(
    table: Tensor, accumulator: Tensor, rows: Tensor, grad: Tensor, lr: float
) -> None:
    """Update `rows` [U] of `table` [C, d] in place by their gradient [U, d].

    One accumulator a row, the mean of its squared gradient (the row-wise Adagrad of FBGEMM's
    embedding tables); rows that are not touched neither move nor decay.
    """
    accumulator[rows] += grad.square().mean(1)
    table[rows] -= lr * grad / (accumulator[rows].sqrt() + EPSILON)[:, None]


def optimizer_state(parameters: Parameters, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `parameter/entry`."""
    out: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                out[f"{name}/{entry}"] = torch.as_tensor(value)
    return out


def load_optimizer(
    parameters: Parameters, optimizer: Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Take what `optimizer_state` gave."""
    for name, parameter in parameters.items():
        entries = {k.rpartition("/"): v for k, v in state.items()}
        mine = {k[2]: v.clone() for k, v in entries.items() if k[0] == name}
        if mine:
            optimizer.state[parameter] = mine
