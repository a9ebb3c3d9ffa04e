"""Encodes the texts of the whole catalogue with a pool of encoder actors, ahead of learning.

What the store has is not encoded again, so this may run at any time, for a new encoder too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data

from ray_rec.config import RunConfig
from ray_rec.events.decode import decode
from ray_rec.events.schema import ITEMS
from ray_rec.features.catalogue import Catalogue
from ray_rec.log.base import open_log
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore

Progress = Callable[[str, int, int], None]
"""Told ("texts", encoded, to be encoded) after each batch."""

BATCH_TEXTS = 64


@dataclass(frozen=True)
class EmbedReport:
    """Items in the catalogue, distinct texts among them, and how many had no vector before."""

    items: int
    texts: int
    encoded: int


def embed_catalogue(config: RunConfig, progress: Progress | None = None) -> EmbedReport:
    """Bring a vector of every text of the log's catalogue into the text store of `state_dir`.

    Ray must be initialised; the pool has an actor for each CPU (GPU with `training.use_gpu`).

    Raises:
        LogError: the log does not answer, or has no `items`.
        ModelError: the encoder cannot be loaded.
    """
    num_items, texts = catalogue_texts(config.log)
    store = TextStore(f"{config.state_dir}/texts", TextEncoder(config.encoder).digest)
    encoded = 0

    def encode(missing: Sequence[str]) -> npt.NDArray[np.float32]:
        nonlocal encoded
        encoded += len(missing)
        return _encode(missing, config, progress)

    if texts:
        store.vectors(texts, encode)
    return EmbedReport(num_items, len(texts), encoded)


def catalogue_texts(log_url: str) -> tuple[int, list[str]]:
    """Return the number of items in the log and their distinct texts, as learning sees them."""
    catalogue = Catalogue()
    with open_log(log_url) as log:
        first, end = log.earliest(ITEMS), log.latest(ITEMS)
        for raw in log.read(ITEMS, {p: (first[p], end[p]) for p in end}):
            catalogue.apply(decode(ITEMS, raw).table)
    texts = {catalogue.text(row) for row in range(len(catalogue))}
    return len(catalogue), sorted(texts - {""})


class _Encode:
    """One actor of the pool."""

    def __init__(self, config: EncoderConfig) -> None:
        self._encoder = TextEncoder(config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"row": batch["row"], "vector": self._encoder.encode(batch["text"].tolist())}


def _encode(
    texts: Sequence[str], config: RunConfig, progress: Progress | None
) -> npt.NDArray[np.float32]:
    """Return float32 [len(texts), D], in the order of `texts`."""
    vectors: npt.NDArray[np.float32] | None = None
    done = 0
    if progress is not None:
        progress("texts", 0, len(texts))
    for batch in _pipeline(texts, config).iter_batches(batch_size=None, batch_format="numpy"):
        if vectors is None:
            vectors = np.empty((len(texts), batch["vector"].shape[1]), np.float32)
        vectors[batch["row"]] = batch["vector"]
        done += len(batch["row"])
        if progress is not None:
            progress("texts", done, len(texts))
    return np.empty((0, 0), np.float32) if vectors is None else vectors


def _pipeline(texts: Sequence[str], config: RunConfig) -> Any:
    """Return a dataset of row and vector; texts of like length share a batch, to save padding."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    table = pa.table({"row": pa.array(order, pa.int64()), "text": [texts[row] for row in order]})
    blocks = [table.slice(at, BATCH_TEXTS) for at in range(0, len(texts), BATCH_TEXTS)]
    on_gpu = config.training.use_gpu
    # Ray has no types for it
    cluster: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    size = min(len(blocks), max(1, int(cluster.get("GPU" if on_gpu else "CPU", 1))))
    dataset = ray.data.from_arrow([*blocks])
    dataset.context.enable_progress_bars = False
    return dataset.map_batches(
        _Encode,
        fn_constructor_args=(config.encoder,),
        batch_size=BATCH_TEXTS,
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=None if on_gpu else 1,
        num_gpus=1 if on_gpu else None,
    )
