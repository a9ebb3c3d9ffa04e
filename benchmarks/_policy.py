"""One row of benchmarks.policies: an encoder that learns by one policy, what it answers and costs.

It runs in a process of its own and leaves a file of answers.
"""

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks._asked import by_time, keep, kept_answers, pretrained
from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.offline import View, judge_views
from ray_rec.evaluation.rankers.hybrid import Hybrid
from ray_rec.evaluation.rankers.neighbours import TextKnn
from ray_rec.features.arrays import Float32
from ray_rec.log.base import open_log
from ray_rec.model.adapt import AdaptOptions, adapt
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.self_supervised import LossOptions
from ray_rec.model.servable import ITEMS, WHITENING
from ray_rec.model.text import Vectors, Whitening

MODEL, KNN = Hybrid.name, TextKnn.name


@dataclass(frozen=True)
class Task:
    """What a row's process is told; `start` is what it goes on from, None to learn that."""

    name: str
    config: RunConfig
    passes: int
    start: Path | None
    adaptation: dict[str, Any] | None
    questions: int
    earlier: bool
    key: str
    kept: Path


@dataclass(frozen=True)
class Figures:
    """What a row costs; seconds are of the processor, MB are 10**6 bytes."""

    trained: int
    texts: int
    """Through the encoder to learn from."""
    learn_s: float
    encode_s: float
    """For the whole catalogue anew."""
    peak_mb: float
    """Of the process, until it has learned."""
    held_mb: float = 0.0
    """For the gradient of a full batch of texts; nothing where no encoder learns."""


class Watched(TextEncoder):
    """An encoder that counts the texts it learns from, and keeps what it encoded last."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.learned, self.encode_s = 0, 0.0
        self._last: dict[str, Float32] = {}

    def hidden(self, tokens: Tensor, mask: Tensor, mixed: bool = True) -> Tensor:
        """Return the vector of each token."""
        self.learned += len(tokens) * torch.is_grad_enabled()
        return super().hidden(tokens, mask, mixed)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors, without gradients."""
        began = time.process_time()
        made = super().encode(texts)
        self.encode_s += time.process_time() - began
        self._last = dict(zip(texts, made, strict=True))
        return made

    def raw(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts as they were encoded last; zeros where a text is empty."""
        if not self._last:
            self.encode([*dict.fromkeys(texts)])
        out = np.stack([self._last[text] for text in texts])
        out[np.array([not text for text in texts])] = 0.0
        return out


def measure(task: Task) -> None:
    """Learn, ask, and keep the answers and figures."""
    config = task.config
    torch.set_num_threads(config.training.torch_threads)
    with open_log(config.log) as log:
        logged = read_log(log, config)
    texts = [str(text) for text in logged.items["text"].to_pylist()]
    raw, encoder, start = pretrained(config, texts), None, None
    began, figures = time.process_time(), []
    if task.start is not None:
        start = torch.load(task.start)
    if task.adaptation is not None and start is not None:
        encoder = _adapted(config, texts, task.adaptation)
        raw = encoder.raw(texts)
        start = _placed(start, raw)
    elif config.encoder.learns:
        encoder = Watched(config.encoder)
    tuned = encoder if config.encoder.learns else None
    hybrid = Hybrid(config, logged.items, raw, task.passes, True, tuned, start)
    hybrid.after_pass = lambda _: figures.append(_figures(encoder, time.process_time() - began))
    split = by_time(logged.events, task.earlier).without_repeats().sampled(task.questions)
    view = View(np.ones(len(split.target), np.bool_), repeats=False)
    answers = judge_views(split, [hybrid], [view])[0]
    if task.start is None:
        torch.save(hybrid.learned(), task.kept.with_suffix(".pt"))
    if encoder is not None:
        raw = encoder.raw(texts)
    near = judge_views(split, [TextKnn(raw, config.model.text_dim)], [view])[0]
    _keep(task, answers.with_answers(near), _held(figures[-1], encoder, texts))


def _adapted(config: RunConfig, texts: Sequence[str], how: dict[str, Any]) -> Watched:
    """Return an encoder that learned from as many texts of the catalogue, by its losses."""
    encoder = Watched(replace(config.encoder, policy="full"))
    mixed = config.learner.precision == "bfloat16"
    losses = LossOptions(how["masked"], how["contrastive"], bfloat16=mixed)
    adapt(encoder, sorted(set(texts))[:: how["every"]], AdaptOptions(losses, lr=how["lr"]))
    return encoder


def _placed(start: dict[str, Tensor], raw: Vectors) -> dict[str, Tensor]:
    """Return a start with other vectors of texts; the whitening moves its centre to them."""
    centre = torch.from_numpy(np.unique(raw[raw.any(axis=1)], axis=0).mean(axis=0))
    white = Whitening(centre, start[f"{WHITENING}projection"])
    text = start[f"{ITEMS}text"].clone()
    text[start[f"{ITEMS}text_row"]] = white.apply(torch.from_numpy(raw))
    return {**start, f"{ITEMS}text": text, f"{WHITENING}mean": centre}


def _figures(encoder: Watched | None, spent_s: float) -> Figures:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if encoder is None:
        return Figures(0, 0, spent_s, 0.0, peak_mb)
    encode_s = encoder.encode_s
    return Figures(encoder.size.trained, encoder.learned, spent_s - encode_s, encode_s, peak_mb)


def _held(figures: Figures, encoder: Watched | None, texts: Sequence[str]) -> Figures:
    if encoder is None:
        return figures
    batch = sorted(texts, key=len)[-encoder.config.batch_size :]
    return replace(figures, held_mb=held_mb(encoder, batch))


def held_mb(encoder: TextEncoder, texts: Sequence[str]) -> float:
    """Return the memory that is held until the gradient of a batch is there, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in encoder.model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        made = encoder.vectors(texts)
    del made
    return sum(held.values()) / 1e6


def _keep(task: Task, answers: Ranked, figures: Figures) -> None:
    kept = replace(answers, ranks={name: answers.ranks[name] for name in (MODEL, KNN)})
    keep(task.kept, kept, {"key": task.key, **asdict(figures)})


def read(kept: Path) -> tuple[Ranked, Figures, str]:
    """Return the answers that were kept, by `MODEL` and `KNN`, the figures, and the key."""
    answers, how, _ = kept_answers(kept)
    key = how.pop("key")
    return answers, Figures(**how), key
