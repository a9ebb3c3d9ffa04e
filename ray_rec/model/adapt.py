"""Adapts a text encoder to a catalogue's texts before it is fine-tuned on what people do.

Nothing but texts is needed; the losses are in `self_supervised`. The same texts and seed give the
same weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from ray_rec.errors import ConfigError, DataError, ModelError
from ray_rec.features.arrays import Int64, hash_strings, mix
from ray_rec.features.text_augment import InTurn, TextTransform
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.self_supervised import Lesson, LossOptions, seeded

_WARMUP = 0.1
"""Share of the steps until the rate is at its height; from there it falls to 0."""
_CLIP = 1.0
_FEWEST = 2
_ORDER, _DROPOUT, _HELD_OUT, _MEASURED = range(4)
"""Tell draws of different kinds apart."""

Losses = dict[str, float]
Progress = Callable[[str, int, int], None]
"""Told ("steps", taken, in all) after each step."""


@dataclass(frozen=True)
class AdaptOptions:
    """How an encoder is adapted."""

    losses: LossOptions = field(default_factory=LossOptions)
    epochs: int = 1
    batch_size: int = 64
    """Texts of a step; of each, the others are what its two views are told from."""
    lr: float = 3e-5
    head_lr: float = 1e-3
    """Rate of the head that tells hidden words, which starts from nothing."""
    held_out: float = 0.05
    """Share of the texts, chosen by their hash, that losses are measured on and nothing learned."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value; raise ConfigError naming the first that is wrong."""
        for key, least in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be at least {least}")
        for key in ("lr", "head_lr"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be above 0")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}; it must be above 0 and below 1")


@dataclass(frozen=True)
class AdaptReport:
    """Texts learned and held out, steps taken, and the mean losses of the held-out texts."""

    learned: int
    held_out: int
    steps: int
    before: Losses
    after: Losses


def adapt(
    encoder: TextEncoder,
    texts: Sequence[str],
    options: AdaptOptions,
    augment: TextTransform | None = None,
    progress: Progress | None = None,
) -> AdaptReport:
    """Let an encoder learn from texts alone, in place; the same seed gives the same weights.

    Args:
        encoder: one whose policy lets it learn.
        texts: of a catalogue, in any order; each is taken once.
        options: losses, rate and length.
        augment: gives the two views of a text other words too.
        progress: told how far it is.

    Raises:
        DataError: there are too few texts to learn from and to measure on.
        ModelError: the encoder is frozen, or its tokenizer has no token that hides another.
    """
    if not encoder.config.learns:
        raise ModelError("the encoder is frozen; adapt it with encoder.policy=full or top-k")
    learned, held = _divided(texts, options.held_out)
    steps = options.epochs * (-(-len(learned) // options.batch_size))
    with seeded(options.seed):
        lesson = Lesson(encoder, options.losses, augment or InTurn(()))
    before = _measured(lesson, held, options)
    _learn(lesson, learned, options, steps, progress)
    return AdaptReport(len(learned), len(held), steps, before, _measured(lesson, held, options))


def _divided(texts: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Return the distinct texts that are learned, and those held out: the smallest hashes."""
    distinct = sorted({text for text in texts if text.strip()})
    hashes = hash_strings(pa.array(distinct, pa.string()))
    order = np.argsort(mix(hashes, _filled(len(distinct), _HELD_OUT)), kind="stable").tolist()
    num_held = max(_FEWEST, round(share * len(distinct)))
    if len(distinct) < num_held + _FEWEST:
        raise DataError(
            f"{len(distinct)} distinct texts are too few to hold out {num_held} and to learn at "
            f"least {_FEWEST}; give more texts"
        )
    held = set(order[:num_held])
    kept = [text for row, text in enumerate(distinct) if row not in held]
    return kept, [distinct[row] for row in sorted(held)]


def _learn(
    lesson: Lesson,
    texts: list[str],
    options: AdaptOptions,
    steps: int,
    progress: Progress | None,
) -> None:
    own, head = [*lesson.encoder.parameters().values()], lesson.head_parameters()
    rates = [{"params": own, "lr": options.lr}, {"params": head, "lr": options.head_lr}]
    optimizer = torch.optim.AdamW(rates)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    with _training(lesson.encoder.model):
        for step, batch in enumerate(_batches(texts, options)):
            losses = lesson.losses(batch, _draw(options.seed, step, _DROPOUT))
            optimizer.zero_grad()
            torch.autograd.backward(lesson.weighted(losses))
            nn.utils.clip_grad_norm_([*own, *head], _CLIP)
            optimizer.step()
            rate.step()
            if progress is not None:
                progress("steps", step + 1, steps)


def _rate(step: int, steps: int) -> float:
    """Return the share of the rate: up over the first tenth, then down to 0, both straight."""
    warm = max(1.0, _WARMUP * steps)
    return min((step + 1) / warm, (steps - step) / max(1.0, steps - warm))


def _batches(texts: list[str], options: AdaptOptions) -> Iterator[list[str]]:
    """Yield all texts once an epoch, each time in another order."""
    hashes = hash_strings(pa.array(texts, pa.string()))
    for epoch in range(options.epochs):
        told = [_filled(len(texts), number) for number in (options.seed, epoch, _ORDER)]
        order = np.argsort(mix(hashes, *told), kind="stable").tolist()
        for at in range(0, len(order), options.batch_size):
            yield [texts[row] for row in order[at : at + options.batch_size]]


def _measured(lesson: Lesson, texts: list[str], options: AdaptOptions) -> Losses:
    """Return the mean losses over texts, with the dropout of learning, always the same."""
    total: Losses = {}
    size = options.batch_size
    with _training(lesson.encoder.model), torch.no_grad():
        for at in range(0, len(texts), size):
            batch = texts[at : at + size]
            for name, loss in lesson.losses(batch, _draw(options.seed, at, _MEASURED)).items():
                total[name] = total.get(name, 0.0) + float(loss) * len(batch) / len(texts)
    return total


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Turn dropout on for a while."""
    model.train()
    try:
        yield
    finally:
        model.eval()


def _filled(length: int, number: int) -> Int64:
    return np.full(length, number, np.int64)


def _draw(seed: int, step: int, kind: int) -> int:
    """Return a number below 2^40 that follows from its parts alone."""
    return int(mix(*(_filled(1, part) for part in (seed, step, kind)))[0] >> np.uint64(24))
