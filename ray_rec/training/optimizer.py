"""Two optimizers: AdamW (or SGD) for the dense part, row-wise Adagrad for the items touched."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ray_rec.training.config import LearnerConfig

STEPS = "steps"
EPSILON = 1e-8


def dense_optimizer(model: nn.Module, config: LearnerConfig) -> tuple[Optimizer, LambdaLR]:
    """Return optimizer and schedule: linear warm-up, then constant, as suits endless training.

    Only matrices decay: no norm, bias or single weight of a head does.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    warmup = config.warmup_steps
    return optimizer, LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))


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
    model: nn.Module, optimizer: Optimizer, schedule: LambdaLR
) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `parameter/entry`, and the steps taken."""
    out = {STEPS: torch.tensor(schedule.last_epoch)}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                out[f"{name}/{entry}"] = torch.as_tensor(value)
    return out


def load_optimizer(
    model: nn.Module, optimizer: Optimizer, schedule: LambdaLR, state: Mapping[str, Tensor]
) -> None:
    """Take what `optimizer_state` gave."""
    for name, parameter in model.named_parameters():
        entries = {k.rpartition("/"): v for k, v in state.items()}
        mine = {k[2]: v.clone() for k, v in entries.items() if k[0] == name}
        if mine:
            optimizer.state[parameter] = mine
    schedule.last_epoch = int(state[STEPS])
    for group, base, scale in zip(
        optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * scale(schedule.last_epoch)
