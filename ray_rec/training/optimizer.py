"""Two optimizers: one for the dense part and an encoder that learns, row-wise Adagrad for items."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ray_rec.training.config import LearnerConfig

STEPS = "steps"
ENCODER = "encoder."
"""How the names of an encoder's parameters begin, beside those of the network."""

EPSILON = 1e-8

Parameters = Mapping[str, nn.Parameter]


def dense_optimizer(parameters: Parameters, config: LearnerConfig) -> tuple[Optimizer, LambdaLR]:
    """Return optimizer and schedule of the parameters, by name.

    Only matrices decay: no norm, bias or single weight of a head does.
    """
    encoder = [p for name, p in parameters.items() if name.startswith(ENCODER)]
    network = [p for name, p in parameters.items() if not name.startswith(ENCODER)]
    groups = []
    for part, lr in ((network, config.lr), (encoder, config.encoder_lr)):
        matrices, others = [p for p in part if p.ndim > 1], [p for p in part if p.ndim <= 1]
        for group, decay in ((matrices, config.weight_decay), (others, 0.0)):
            if group:
                groups.append({"params": group, "lr": lr, "weight_decay": decay})
    return (made := _optimizer(groups, config)), LambdaLR(made, partial(rate, config))


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


def rate(config: LearnerConfig, step: int) -> float:
    """Return the factor on the rates for a step, from 0: linear warm-up, then the schedule.

    Constant suits endless training; linear and cosine come down to 0 at `total_steps`.

    >>> plan = LearnerConfig(warmup_steps=2, total_steps=6, schedule="linear")
    >>> [rate(plan, step) for step in range(8)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    return min(1.0, (step + 1) / max(1, config.warmup_steps)) * left(config, step)


def left(config: LearnerConfig, step: int) -> float:
    """Return what the schedule leaves of the rates at a step, from 0; item vectors know no warm-up.

    >>> plan = LearnerConfig(warmup_steps=2, total_steps=6, schedule="linear")
    >>> [left(plan, step) for step in (0, 2, 4, 6)]
    [1.0, 1.0, 0.5, 0.0]
    """
    if config.schedule == "constant":
        return 1.0
    past = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    past = min(1.0, max(0.0, past))
    return 1.0 - past if config.schedule == "linear" else (1 + math.cos(math.pi * past)) / 2


def rowwise_adagrad_(
    table: Tensor, accumulator: Tensor, rows: Tensor, grad: Tensor, lr: float
) -> None:
    """Update `rows` [U] of `table` [C, d] in place by their gradient [U, d].

    One accumulator a row, the mean of its squared gradient (the row-wise Adagrad of FBGEMM's
    embedding tables); rows that are not touched neither move nor decay.
    """
    accumulator[rows] += grad.square().mean(1)
    table[rows] -= lr * grad / (accumulator[rows].sqrt() + EPSILON)[:, None]


def optimizer_state(
    parameters: Parameters, optimizer: Optimizer, schedule: LambdaLR
) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `parameter/entry`, and the steps taken."""
    out = {STEPS: torch.tensor(schedule.last_epoch)}
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                out[f"{name}/{entry}"] = torch.as_tensor(value)
    return out


def load_optimizer(
    parameters: Parameters, optimizer: Optimizer, schedule: LambdaLR, state: Mapping[str, Tensor]
) -> None:
    """Take what `optimizer_state` gave."""
    for name, parameter in parameters.items():
        entries = {k.rpartition("/"): v for k, v in state.items()}
        mine = {k[2]: v.clone() for k, v in entries.items() if k[0] == name}
        if mine:
            optimizer.state[parameter] = mine
    schedule.last_epoch = int(state[STEPS])
    for group, base, scale in zip(
        optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * scale(schedule.last_epoch)
