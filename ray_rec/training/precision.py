"""In which precision a step's forward pass runs."""

import torch

from ray_rec.training.config import LearnerConfig


def mixed_precision(config: LearnerConfig, device: torch.device) -> bool:
    """Whether steps run under bfloat16 autocast: when asked for, or where a GPU has it."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bfloat16"
