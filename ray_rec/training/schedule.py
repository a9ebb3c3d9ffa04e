"""How fast each step learns: by the steps taken so far, or by how far several passes have come."""

import math
from dataclasses import dataclass

from ray_rec.training.config import LearnerConfig

WARMUP_SHARE = 0.1
"""Of all steps of several passes."""


@dataclass(frozen=True)
class Rates:
    """Factors on a step's rates: of network and encoder, of item vectors, and one on both."""

    network: float
    own: float
    scale: float = 1.0


def scheduled(config: LearnerConfig, step: int, scale: float = 1.0) -> Rates:
    """Return what the configured schedule says for a step, from 0."""
    return Rates(rate(config, step), left(config, step), scale)


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


def one_cycle(before: float, after: float, scale: float = 1.0) -> Rates:
    """Return the rates of a step that takes several passes from one share of their way to another.

    They warm up over the first tenth and come down to 0 by a cosine (Smith and Topin 2018); item
    vectors know no warm-up.

    >>> [one_cycle(step / 20, (step + 1) / 20).network for step in (0, 1, 2)]
    [0.5, 1.0, 1.0]
    >>> round(one_cycle(0.55, 0.6).own, 9), one_cycle(1.0, 1.0).own
    (0.5, 0.0)
    """
    past = max(0.0, (before - WARMUP_SHARE) / (1 - WARMUP_SHARE))
    own = (1 + math.cos(math.pi * past)) / 2
    return Rates(min(1.0, after / WARMUP_SHARE) * own, own, scale)
