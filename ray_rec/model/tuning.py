"""Which parameters of a pretrained encoder learn: the policies, each one configuration value.

`tune` changes a loaded model in place as little as its policy needs. What learns is told by
`requires_grad` from then on, so that whoever trains, counts or saves asks the parameters alone.
`peft`, which takes seconds to import, is imported by the policies that are its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.errors import ModelError
from ray_rec.model.config import EncoderConfig

if TYPE_CHECKING:
    from peft import PeftConfig

_START_SEED = 0
"""New parameters start alike in every process, so that workers need not exchange them."""

_PREFIX_SCALE = 0.02
"""Standard deviation of a prefix at its start, that of BERT's own weights."""

_OPTIONS: dict[str, tuple[str, ...]] = {
    "top-k": ("top_layers",),
    "lora": ("rank",),
    "adalora": ("rank", "rank_steps"),
    "prefix": ("prefix_length",),
    "adapter": ("bottleneck",),
}


def tuning_of(config: EncoderConfig) -> dict[str, str | int]:
    """Return the options that say how an encoder is tuned, as far as its policy reads them.

    >>> tuning_of(EncoderConfig(policy="lora", rank=4))
    {'policy': 'lora', 'pooling': 'mean', 'rank': 4}
    """
    keys = ("policy", "pooling", *_OPTIONS.get(config.policy, ()))
    return {key: getattr(config, key) for key in keys}


def tune(model: nn.Module, config: EncoderConfig) -> nn.Module:
    """Return the model with those parameters to be trained that `config.policy` names.

    What is added leaves the model's output as it is, but for a prefix, which takes some of the
    attention away from the text and moves its places.

    Raises:
        ModelError: the model has fewer blocks than `encoder.top_layers`, or is of a kind for which
            no place of the policy's matrices is known.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(_START_SEED)
        match config.policy:
            case "full":
                _thaw_all(model)
            case "top-k":
                _thaw_top(model, config.top_layers)
            case "adapter":
                for block in _blocks(model):
                    block.add_module("adapter", Adapter(_width(model), config.bottleneck))
                    block.register_forward_hook(_through_adapter)
            case "lora" | "adalora":
                model = _by_peft(model, config)
            case "prefix":
                model = _by_peft(model, config)
                _shrink(trained_parameters(model).values())
    return model.eval()


class Adapter(nn.Module):
    """x + up(gelu(down(x))), the bottleneck of Houlsby et al. (2019), after a block; starts as x.

    Maps [..., width] to the same.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the next block sees."""
        return x + cast(Tensor, self.up(functional.gelu(self.down(x))))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Size:
    """How much of an encoder learns."""

    policy: str
    trained: int
    total: int
    trained_mb: float
    total_mb: float

    @classmethod
    def of(cls, model: nn.Module, policy: str) -> "Size":
        """Count a tuned model's parameters and the memory that they take."""
        trained, every = trained_parameters(model).values(), list(model.parameters())
        return cls(
            policy=policy,
            trained=sum(p.numel() for p in trained),
            total=sum(p.numel() for p in every),
            trained_mb=sum(p.nbytes for p in trained) / 1e6,
            total_mb=sum(p.nbytes for p in every) / 1e6,
        )

    def __str__(self) -> str:
        """Return one line for people.

        >>> print(Size("lora", 73_728, 22_787_000, 0.295, 91.1))
        encoder (lora): 73,728 of 22,787,000 parameters learn (0.32 %), 0.3 of 91.1 MB
        """
        return (
            f"encoder ({self.policy}): {self.trained:,} of {self.total:,} parameters learn "
            f"({self.trained / self.total:.2%}), {self.trained_mb:.1f} of {self.total_mb:.1f} MB"
        ).replace("%)", " %)")


def _shrink(prefix: Iterable[nn.Parameter]) -> None:
    """Scale what `peft` starts at unit variance, under which texts become all alike."""
    with torch.no_grad():
        for parameter in prefix:
            parameter.mul_(_PREFIX_SCALE)


def _thaw_all(model: nn.Module) -> None:
    model.requires_grad_(True)
    if isinstance(pooler := getattr(model, "pooler", None), nn.Module):
        pooler.requires_grad_(False)  # BERT's: no vector of ours goes through it


def _thaw_top(model: nn.Module, count: int) -> None:
    blocks = _blocks(model)
    if count > len(blocks):
        raise ModelError(f"encoder.top_layers is {count}; this encoder has {len(blocks)} blocks")
    for block in blocks[-count:]:
        block.requires_grad_(True)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks, from the input to the output."""
    count = cast(Any, model).config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise ModelError(
        f"{type(model).__name__} has no list of {count} blocks to adapt; use encoder.policy=full"
    )


def _width(model: nn.Module) -> int:
    return int(cast(Any, model).config.hidden_size)


def _through_adapter(block: nn.Module, _: Any, output: Any) -> Any:
    """Hook of a block, which gives its hidden states alone or first among other things."""
    adapter = cast(nn.Module, block.adapter)
    if isinstance(output, Tensor):
        return adapter(output)
    return (adapter(output[0]), *output[1:])


def _by_peft(model: nn.Module, config: EncoderConfig) -> nn.Module:
    from peft import get_peft_model

    try:
        return cast(nn.Module, get_peft_model(cast(Any, model), _peft_config(model, config)))
    except ValueError as error:
        raise ModelError(
            f"encoder.policy={config.policy} does not fit {type(model).__name__} ({error}); "
            "use adapter, top-k or full"
        ) from error


def _peft_config(model: nn.Module, config: EncoderConfig) -> "PeftConfig":
    from peft import AdaLoraConfig, LoraConfig, PrefixTuningConfig, TaskType

    task = TaskType.FEATURE_EXTRACTION
    if config.policy == "prefix":
        return PrefixTuningConfig(task_type=task, num_virtual_tokens=config.prefix_length)
    # GPT-2 keeps its matrices the other way round
    turned = any(type(module).__name__ == "Conv1D" for module in model.modules())
    if config.policy == "lora":
        return LoraConfig(
            task_type=task, r=config.rank, lora_alpha=2 * config.rank, fan_in_fan_out=turned
        )
    steps = config.rank_steps
    return AdaLoraConfig(
        task_type=task,
        init_r=2 * config.rank,
        target_r=config.rank,
        lora_alpha=2 * config.rank,
        fan_in_fan_out=turned,
        tinit=steps // 10,
        tfinal=0,
        deltaT=max(1, steps // 100),
        total_step=steps,
    )
