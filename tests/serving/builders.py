"""Real versions of a tiny shop: learned for a moment, then published with the state beside them."""

import dataclasses
import socket
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ray_rec.events import decode
from ray_rec.features.config import GROUPS, FeatureConfig
from ray_rec.features.examples import assign_steps
from ray_rec.features.state import FeatureState
from ray_rec.log import EventLog, Window
from ray_rec.model.changes import Rows
from ray_rec.model.config import EncoderConfig, ModelConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.items import SERVED_ROWS
from ray_rec.registry import Draft, Gate, Manifest, Registry, Version
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner

Float32 = npt.NDArray[np.float32]
TOPICS = ("items", "events", "exposures", "controls")
MODEL = ModelConfig(dim=16, text_dim=16, tower_dim=16, dropout=0.0)
FEATURES = FeatureConfig()


class Words:
    """An encoder that adds up one random vector a word: texts with common words are close."""

    def __init__(self, dim: int = 64, digest: str = "words") -> None:
        self._dim, self.digest = dim, digest

    def encode(self, texts: Sequence[str]) -> Float32:
        out = np.zeros((len(texts), self._dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", " ").split():
                seed = zlib.crc32(word.encode())
                out[row] += np.random.default_rng(seed).normal(size=self._dim)
        return out


def minilm() -> TextEncoder:
    """The real encoder; its weights are loaded when it first encodes."""
    return TextEncoder(EncoderConfig())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def state_of(
    log: EventLog,
    encode: Callable[[Sequence[str]], Float32],
    seed: int = 0,
    model: ModelConfig = MODEL,
    features: FeatureConfig = FEATURES,
) -> tuple[FeatureState, Learner]:
    """Apply the whole log as one window and learn a little from it."""
    state, learner = FeatureState(features), Learner(model, LearnerConfig(seed=seed))
    ranges = {t: {p: (0, end) for p, end in log.latest(t).items()} for t in TOPICS}
    tables = {}
    for topic in TOPICS:
        raw = list(log.read(topic, ranges[topic]))
        if raw:
            tables[topic] = decode(topic, pa.concat_tables(raw)).table
    window = state.apply(Window(number=0, ranges=ranges), tables)
    learner.observe(window.items, encode(window.items["text"].to_pylist()))
    examples = assign_steps(window.examples, rows_per_step=64)
    learner.learn(window, examples, 1 + max(examples["step"].to_pylist(), default=-1))
    return state, learner


def version_of(
    log: EventLog,
    number: int,
    encoder: Words | TextEncoder,
    model: ModelConfig = MODEL,
    features: FeatureConfig = FEATURES,
) -> tuple[Version, FeatureState]:
    """Make version `number`: its weights start from that seed, its rows lie in another order."""
    state, learner = state_of(log, encoder.encode, number, model, features)
    tensors = dict(learner.export())
    order = np.random.default_rng(number).permutation(len(state.catalogue))
    for name in (f"items.{name}" for name in SERVED_ROWS):
        tensors[name] = tensors[name][order]
    manifest = Manifest(
        parent=None,
        windows=(0, 0),
        offsets=state.offsets,
        config={"model": dataclasses.asdict(model)},
        encoder=encoder.digest,
        gate=Gate(passed=True),
        version=number,
        promoted=True,
    )
    return Version(tensors, [str(state.catalogue.item_id[row]) for row in order], manifest), state


def publish_delta(registry: Registry, number: int, before: Version, *new: str) -> Version:
    """Publish `number` on top of a version: five items learned on, and `new` ones with a text."""
    generator, end = torch.Generator().manual_seed(number), len(before.rows)
    rows = torch.cat(
        [torch.randperm(end, generator=generator)[:5], torch.arange(end, end + len(new))]
    )
    ids = before.tensors["items.id"]
    texts = torch.arange(len(new)) + len(before.tensors["items.text"])
    white = before.tensors["items.text"]
    text_row = torch.cat([before.tensors["items.text_row"][rows[:5]], texts])
    changes = {
        "items.id": Rows(rows, torch.randn(len(rows), ids.shape[1], generator=generator)),
        "items.count": Rows(rows, torch.full((len(rows),), 50.0)),
        "items.price": Rows(rows, torch.ones(len(rows))),
        "items.groups": Rows(rows, torch.zeros(len(rows), len(GROUPS), dtype=torch.int64)),
        "items.responses": Rows(rows, torch.zeros(len(rows), 1 + MODEL.num_outcomes)),
        "items.text_row": Rows(rows, text_row),
        "items.text": Rows(texts, white[: len(new)]),
        "model.recall.scale": before.tensors["model.recall.scale"] + 0.5,
    }
    manifest = before.manifest
    draft = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(Draft)}
    registry.publish(number, changes, new, Draft(**draft | {"base": manifest.as_base()}))
    return registry.load(number)


def publish(
    log: EventLog, registry: Registry, number: int, encoder: Words | TextEncoder
) -> Version:
    """Publish version `number` and the state that it was made of."""
    return put(registry, *version_of(log, number, encoder))


def put(registry: Registry, version: Version, state: FeatureState) -> Version:
    """Publish a version that was made, and the state that it was made of."""
    number = version.manifest.version
    draft = {f.name: getattr(version.manifest, f.name) for f in dataclasses.fields(Draft)}
    registry.publish(number, version.tensors, version.rows, Draft(**draft))
    registry.publish_snapshot(number, state.snapshot(), state.offsets)
    return registry.load(number)
