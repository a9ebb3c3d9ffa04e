"""Raw vectors of texts for all workers: one of them encodes, the others find them stored."""

from collections.abc import Sequence

from ray_rec.config import RunConfig
from ray_rec.features.arrays import Float32
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore
from ray_rec.training.workers import Workers


class TextVectors:
    """The vectors that a run's encoder makes.

    Args:
        config: of the run.
        opened: digest of the encoder as the run opened it, under which vectors are stored.
        workers: the process group; all of its workers ask for the same texts.
    """

    def __init__(self, config: RunConfig, opened: str, workers: Workers) -> None:
        self._learns, self._workers = config.encoder.learns, workers
        self._store = TextStore(f"{config.state_dir}/texts", opened)

    def of(self, texts: Sequence[str], encoder: TextEncoder) -> Float32:
        """Return raw vectors [texts, raw_dim]; rank 0 encodes them, others find them stored.

        What an encoder that learns makes is not stored: it soon makes others.
        """
        if self._learns:
            return encoder.encode(texts)
        if self._workers.rank > 0:
            self._workers.wait()
        vectors = self._store.vectors(texts, encoder.encode)
        if self._workers.rank == 0:
            self._workers.wait()
        return vectors
