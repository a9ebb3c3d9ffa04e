"""Vectors of texts, encoded once and kept; and the whitening that makes their cosines tell."""

import hashlib
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ray_rec.errors import ModelError

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

EIGENVALUE_FLOOR = 1e-3
"""Directions below this share of the largest variance are not blown up to unit variance."""


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) @ projection: uncorrelated directions of unit variance, the largest first.

    Attributes:
        mean: [raw_dim].
        projection: [raw_dim, text_dim].
    """

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, raw: Vectors, text_dim: int) -> "Whitening":
        """Fit by PCA in float64 on distinct texts [n, raw_dim].

        Below 2 · text_dim texts the covariance is shrunk towards a multiple of the identity: as few
        as there are directions would otherwise all become equally unlike.
        """
        x = torch.from_numpy(raw).double()
        mean = x.sum(0) / max(1, len(x))
        centred = x - mean
        covariance = centred.T @ centred / max(1, len(x))
        doubt = max(0.0, 1.0 - len(x) / (2 * text_dim))
        even = covariance.diagonal().mean() * torch.eye(len(mean), dtype=torch.float64)
        value, vector = torch.linalg.eigh(torch.lerp(covariance, even, doubt))
        value, vector = value.flip(0)[:text_dim], vector.flip(1)[:, :text_dim]
        # eigh leaves the sign open: fix it, so that the same texts give the same axes
        vector = vector * torch.sign(vector.gather(0, vector.abs().argmax(0, keepdim=True)))
        floor = value[0].clamp(min=1e-12) * EIGENVALUE_FLOOR
        projection = torch.zeros(x.shape[1], text_dim, dtype=torch.float64)
        projection[:, : len(value)] = vector * value.clamp(min=floor).rsqrt()
        return cls(mean.float(), projection.float())

    def apply(self, raw: Tensor) -> Tensor:
        """Return whitened texts [n, text_dim] of length sqrt(text_dim).

        A raw vector of zeros stands for no text and stays zero.
        """
        white = (raw.to(self.mean.dtype) - self.mean) @ self.projection
        white = white * (raw != 0).any(1, keepdim=True)
        return torch.nn.functional.normalize(white, dim=1) * math.sqrt(white.shape[1])


class TextStore:
    """Raw vectors of texts by encoder, in Arrow files under one fsspec URL; written part by part.

    Several processes may share a store: each reads what the others wrote before it encodes.
    """

    def __init__(self, url: str, encoder_digest: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._folder = f"{root}/{encoder_digest[:16]}"
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._read: set[str] = set()

    def vectors(self, texts: Sequence[str], encode: Encode) -> Vectors:
        """Return float32 [len(texts), raw_dim]; `encode` gets distinct missing texts only."""
        missing = self._missing(texts)
        if missing:
            self._load()
            missing = self._missing(missing)
        if missing:
            self._keep(missing, encode(missing))
        return np.stack([self._vectors[text] for text in texts])

    def _missing(self, texts: Sequence[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if text not in self._vectors]

    def _load(self) -> None:
        self._fs.invalidate_cache()
        for path in sorted(self._fs.glob(f"{self._folder}/*.arrow")):
            if path in self._read:
                continue
            with self._fs.open(path, "rb") as file, pa.ipc.open_file(file) as reader:
                table = reader.read_all()
            self._take(*_read_part(table))
            self._read.add(path)

    def _keep(self, texts: list[str], vectors: Vectors) -> None:
        if vectors.shape[:1] != (len(texts),):
            raise ModelError(f"{len(texts)} texts were encoded to vectors of shape {vectors.shape}")
        width = vectors.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
        table = pa.table({"text": pa.array(texts, pa.string()), "vector": column})
        name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
        self._fs.makedirs(self._folder, exist_ok=True)
        part = f"{self._folder}/{name}.{uuid.uuid4().hex}.part"
        with self._fs.open(part, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        path = f"{self._folder}/{name}.arrow"
        self._fs.mv(part, path)
        self._read.add(path)
        self._take(texts, vectors)

    def _take(self, texts: Sequence[str], vectors: Vectors) -> None:
        self._vectors.update(zip(texts, vectors, strict=True))


def _read_part(table: pa.Table) -> tuple[list[str], Vectors]:
    """Return the texts of a part and their vectors [n, raw_dim]."""
    column = table["vector"].combine_chunks()
    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return [str(text) for text in table["text"].to_pylist()], flat.reshape(len(column), -1)
