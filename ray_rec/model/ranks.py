"""AdaLoRA's share-out of ranks among an encoder's matrices, step by step and across restarts."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

_AVERAGE, _DOUBT, _KEPT = "average.", "doubt.", "kept."


class Ranks:
    """Takes ranks away from where they matter least (Zhang et al. 2023), by `peft`'s allocator.

    Args:
        model: an encoder tuned by AdaLoRA, whose gradients are there at each `step`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tuned = cast(Any, model).base_model
        self._allocator = self._tuned.rankallocator
        self._plan = self._tuned.peft_config[self._tuned.trainable_adapter_name]

    def penalty(self) -> Tensor:
        """Return what the loss is to have on top while directions are not orthogonal, a scalar.

        The mean of the Frobenius norms of A·At - I and Bt·B - I, times `peft`'s weight: its own
        `forward` adds this only where it is asked for a loss. Else ranks that share a direction
        would share its importance too.
        """
        norms = []
        for name, matrix in self._tuned.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                rows = matrix if "lora_A" in name else matrix.T
                even = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
                norms.append(torch.linalg.matrix_norm(rows @ rows.T - even))
        return float(self._plan.orth_reg_weight) * torch.stack(norms).mean()

    def step(self, number: int) -> None:
        """Weigh what step `number` (from 1) says of each rank; some steps take ranks away."""
        self._tuned.update_and_allocate(number)

    def state(self) -> dict[str, Tensor]:
        """Return by flat names what later steps depend on, beside the parameters."""
        kept = {name: torch.tensor(mask) for name, mask in (self._plan.rank_pattern or {}).items()}
        parts = {
            _AVERAGE: self._allocator.exp_avg_ipt,
            _DOUBT: self._allocator.exp_avg_unc,
            _KEPT: kept,
        }
        return {f"{part}{name}": t for part, named in parts.items() for name, t in named.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""

        def under(part: str) -> dict[str, Tensor]:
            return {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}

        self._allocator.exp_avg_ipt = {k: v.clone() for k, v in under(_AVERAGE).items()}
        self._allocator.exp_avg_unc = {k: v.clone() for k, v in under(_DOUBT).items()}
        self._allocator.ipt = dict(self._allocator.exp_avg_ipt)  # of a step, made anew by the next
        kept = {name: mask.tolist() for name, mask in under(_KEPT).items()}
        self._plan.rank_pattern = kept or None
