"""The text encoders that versions in service need, each opened when it is first asked for.

While replicas go over from one encoder to another both are held; one that nobody asks for any more
makes way for the next.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ray_rec.errors import ConfigError, ModelError, RegistryError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Registry

MOST = 2
"""Encoders that stay in memory: that of the version before and that of the newest."""

Float32 = npt.NDArray[np.float32]


class HeldEncoders:
    """Encoders by digest, for any number of threads.

    The configured one is held from the start. Another is found through the newest version that
    names it: under `encoders/` of the registry where it was tuned, else in the folder or package
    that the version's configuration names.

    Args:
        config: the configured encoder; nothing of it learns here.
        registry_url: where the versions are; it is opened for another encoder only.

    Raises:
        ModelError: the configured encoder cannot be loaded.
    """

    def __init__(self, config: EncoderConfig, registry_url: str) -> None:
        self._config, self._registry_url = replace(config, policy="frozen"), registry_url
        self._configured = TextEncoder(self._config).digest
        self._lock = threading.Lock()
        self._held: dict[str, Future[TextEncoder]] = {}  # the one asked for last stands last
        self.get(self._configured)

    def digests(self) -> list[str]:
        """Return which are held or being loaded, the one asked for last at the end."""
        with self._lock:
            return list(self._held)

    def get(self, digest: str) -> TextEncoder:
        """Return the encoder, its weights loaded; who asks while it is loaded waits for that.

        Raises:
            ConfigError: it is neither in the registry nor where its version says.
        """
        with self._lock:
            held = self._held.pop(digest, None)
            encoder = self._held[digest] = held or Future()
        if held is None:
            try:
                encoder.set_result(self._open(digest))
            except BaseException as error:
                with self._lock:
                    del self._held[digest]
                encoder.set_exception(error)
            else:
                self._evict()
        return encoder.result()

    def _evict(self) -> None:
        """Drop those asked for longest ago, but none that is still being loaded."""
        with self._lock:
            loaded = [digest for digest, encoder in self._held.items() if encoder.done()]
            for digest in loaded[:-MOST]:
                del self._held[digest]

    def _open(self, digest: str) -> TextEncoder:
        if digest == self._configured:
            return _loaded(TextEncoder(self._config), digest)
        registry = Registry(self._registry_url)
        config = _config_of(registry, digest)
        if config is None:
            raise ConfigError(
                f"no version of {registry.url} names encoder {digest[:12]}, and the configured one "
                f"is {self._configured[:12]}: give replicas and encoders the same registry"
            )
        files = registry.encoders.read(digest)
        try:
            return (
                _loaded(TextEncoder(config), digest)
                if files is None
                else _kept(config, files, digest)
            )
        except ModelError as error:
            raise ConfigError(
                f"encoder {digest[:12]} is not in {registry.url}/encoders, and what its version "
                f"names does not open as it: {error}. Put the model there where the encoders run, "
                "or roll back to a version of another encoder"
            ) from error


def encode_together(requests: Sequence[tuple[TextEncoder, Sequence[str]]]) -> list[Float32]:
    """Return the raw vectors [n, dim] of each request; texts of one encoder share its batches."""
    places: dict[TextEncoder, list[int]] = {}
    for place, (encoder, _) in enumerate(requests):
        places.setdefault(encoder, []).append(place)
    vectors: dict[int, Float32] = {}
    for encoder, asked in places.items():
        texts = [requests[place][1] for place in asked]
        ends = np.cumsum([len(part) for part in texts])
        found = encoder.encode([text for part in texts for text in part])
        vectors |= zip(asked, np.split(found, ends[:-1]), strict=True)
    return [vectors[place] for place in range(len(requests))]


def _config_of(registry: Registry, digest: str) -> EncoderConfig | None:
    """Return how the newest version that names an encoder configured it, frozen."""
    for number in reversed(registry.versions()):
        with suppress(RegistryError):  # pruned meanwhile, or damaged: another may name it too
            manifest = registry.manifest(number)
            plain: Mapping[str, Any] | None = manifest.config.get("encoder")
            if manifest.encoder == digest and plain is not None:
                return replace(msgspec.convert(plain, EncoderConfig), policy="frozen")
    return None


def _kept(config: EncoderConfig, files: Mapping[str, bytes], digest: str) -> TextEncoder:
    """Open an encoder by its files; the copy goes once the weights are in memory."""
    with TemporaryDirectory(prefix="ray-rec-encoder-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return _loaded(TextEncoder(replace(config, model=folder)), digest)


def _loaded(encoder: TextEncoder, digest: str) -> TextEncoder:
    if encoder.digest != digest:
        raise ModelError(f"{encoder.config.model} holds encoder {encoder.digest[:12]}")
    encoder.encode(["loads the weights"])
    return encoder
