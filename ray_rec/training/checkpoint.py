"""What a run continues from: weights, optimizer, window number, and the state's snapshot.

A checkpoint is a folder under `checkpoints/`, its manifest written last; the state before the same
window is the registry's snapshot of that number, written first. So one is whole or not there.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import msgspec
import pyarrow as pa
import safetensors
import safetensors.torch
import torch

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError, StateError
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Base
from ray_rec.registry.files import table_from_bytes, table_to_bytes
from ray_rec.registry.store import Store
from ray_rec.training.workers import Workers

_MANIFEST, _LEARNER, _ROWS, _HELD_OUT = (
    "manifest.json",
    "learner.safetensors",
    "rows.arrow",
    "gate.arrow",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerCheckpoint:
    """Everything before window `number` but the state, which is the snapshot of that number.

    Attributes:
        number: the next window.
        learner: `Learner.state()`.
        rows: item_id of each model row.
        held_out: the gate's rolling set (EXAMPLES_SCHEMA), None before any.
        published: the last version published, on which the next delta builds.
        encoders: digests of the text encoder as the run opened it, and as it made the texts'
            vectors; the same unless it learns. Empty where that is not known.
    """

    number: int
    learner: Mapping[str, torch.Tensor]
    rows: Sequence[str]
    held_out: pa.Table | None
    published: Base | None
    encoders: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Manifest:
    number: int
    published: Base | None
    files: dict[str, str]
    encoders: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoints of a run, newest `keep` of them; one process writes.

    Raises:
        ConfigError: there is no file system for the URL.
    """

    def __init__(self, url: str, keep: int) -> None:
        self._store, self._keep = Store(url), keep

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return the checkpoints of a run."""
        return cls(f"{config.state_dir}/checkpoints", config.training.keep_checkpoints)

    def write(self, checkpoint: TrainerCheckpoint) -> None:
        """Keep a checkpoint durably; one of the same number is the same and stays."""
        if checkpoint.number in self.numbers():
            return
        tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.learner.items()}
        files = {
            _LEARNER: safetensors.torch.save(tensors),
            _ROWS: table_to_bytes(pa.table({"item_id": pa.array(checkpoint.rows, pa.string())})),
        }
        if checkpoint.held_out is not None:
            files[_HELD_OUT] = table_to_bytes(checkpoint.held_out)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = _Manifest(checkpoint.number, checkpoint.published, digests, checkpoint.encoders)
        files[_MANIFEST] = msgspec.json.encode(manifest)
        self._store.write_folder(_folder(checkpoint.number), files, marker=_MANIFEST)
        for old in self.numbers()[: -self._keep]:
            self._store.remove_folder(_folder(old), marker=_MANIFEST)

    def numbers(self) -> list[int]:
        """Return the numbers of all whole checkpoints, oldest first."""
        return [
            int(name)
            for name in self._store.names("")
            if name.isdigit() and self._store.read(f"{name}/{_MANIFEST}") is not None
        ]

    def encoders(self, number: int) -> tuple[str, ...]:
        """Return the `encoders` of a checkpoint, none of a damaged one; it is not read whole."""
        raw = self._store.read(f"{_folder(number)}/{_MANIFEST}")
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(raw or b"", type=_Manifest).encoders
        return ()

    def newest(self, before: int | None = None) -> TrainerCheckpoint | None:
        """Return the newest checkpoint (of a number below `before`); damaged ones are passed over.

        Plans lead from any of them to the same weights, so an older one costs time and no more.
        """
        for number in reversed(self.numbers()):
            if before is not None and number >= before:
                continue
            try:
                return self.read(number)
            except StateError as error:
                _log.error("trying an older checkpoint: %s", error)
        return None

    def agreed(
        self, workers: Workers, resume: Callable[[int], bool], at_most: int | None
    ) -> TrainerCheckpoint | None:
        """Return what all workers go on from: the newest one up to `at_most` that has a state.

        Args:
            workers: of whom rank 0 looks and asks.
            resume: makes the state ready for a window; whether it could. Asked for 0 where there is
                nothing to go on from.
            at_most: None takes any.
        """
        kept: TrainerCheckpoint | None = None
        if workers.rank == 0:
            kept = self.newest(None if at_most is None else at_most + 1)
            while kept is not None and not resume(kept.number):
                _log.error("checkpoint %d has no snapshot of the state", kept.number)
                kept = self.newest(kept.number)
            if kept is None:
                resume(0)
        number = workers.same(kept.number if kept is not None else 0)
        return self.read(number) if workers.rank > 0 and number > 0 else kept

    def read(self, number: int) -> TrainerCheckpoint:
        """Read a checkpoint; StateError when it is not there, or not as it was written."""
        folder = _folder(number)
        try:
            raw = self._store.read(f"{folder}/{_MANIFEST}")
            manifest = msgspec.json.decode(raw or b"", type=_Manifest)
            files = {name: self._checked(folder, name, manifest) for name in manifest.files}
            held_out = files.get(_HELD_OUT)
            return TrainerCheckpoint(
                number=number,
                learner=safetensors.torch.load(files[_LEARNER]),
                rows=[str(row) for row in table_from_bytes(files[_ROWS])["item_id"].to_pylist()],
                held_out=None if held_out is None else table_from_bytes(held_out),
                published=manifest.published,
                encoders=manifest.encoders,
            )
        except (msgspec.MsgspecError, safetensors.SafetensorError, pa.ArrowInvalid) as error:
            raise StateError(
                f"there is no whole checkpoint {number} in {self._store.url} ({error}); "
                f"there are {self.numbers() or 'none'}"
            ) from error

    def _checked(self, folder: str, name: str, manifest: _Manifest) -> bytes:
        data = self._store.read(f"{folder}/{name}")
        if data is None or hashlib.sha256(data).hexdigest() != manifest.files[name]:
            raise StateError(
                f"{folder}/{name} of {self._store.url} is not what its manifest says; remove "
                f"{folder} so that the run continues from an older checkpoint"
            )
        return data


def check_encoder(config: RunConfig, at_most: int | None = None) -> None:
    """Raise ConfigError if a run would go on from vectors of another encoder than it is given.

    From an encoder that learned one may go on with that one as it is.

    Args:
        config: the run's configuration.
        at_most: the newest checkpoint to go on from; None for any.
    """
    checkpoints = Checkpoints.of(config)
    numbers = [k for k in checkpoints.numbers() if at_most is None or k <= at_most]
    known = checkpoints.encoders(numbers[-1]) if numbers else ()
    if not known or (given := TextEncoder(config.encoder).digest) in known:
        return
    tuned = f", or frozen from {config.registry}/encoders/{known[1]}" * (known[0] != known[1])
    raise ConfigError(
        f"checkpoint {numbers[-1]} of {config.state_dir} has the vectors of encoder "
        f"{known[-1][:12]}; encoder.model={config.encoder.model} with the options of [encoder] is "
        f"{given[:12]}: go on with the section as it was{tuned}, or learn with the new one in a "
        "state_dir and registry of their own"
    )


def _folder(number: int) -> str:
    return f"{number:012d}"
