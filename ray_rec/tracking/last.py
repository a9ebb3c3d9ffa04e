"""The newest measurements, kept for whoever asks from another process."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ray_rec.errors import StateError
from ray_rec.registry.store import Store

NAME = "last.json"


@dataclass(frozen=True)
class Recorded:
    """What a stream told last: when (ms UTC), the newest window, the measurements by path."""

    at_ms: int
    window: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class _File:
    """`last.json`; what is not finite is null there."""

    at_ms: int
    window: int
    metrics: dict[str, float | None]


class Last:
    """Replaces `last.json` under the state's URL, whole, each time it is told something."""

    def __init__(self, state_dir: str) -> None:
        self._store = Store(state_dir)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Replace what was kept."""
        kept = _File(time.time_ns() // 1_000_000, step, dict(metrics))
        self._store.write(NAME, msgspec.json.encode(kept))

    def close(self) -> None:
        """Leave the file where it is: it tells how the run ended."""


def last_recorded(state_dir: str) -> Recorded | None:
    """Return what a stream with this `state_dir` told last, None when none ever ran.

    Raises:
        StateError: the file is damaged.
    """
    raw = Store(state_dir).read(NAME)
    if raw is None:
        return None
    try:
        kept = msgspec.json.decode(raw, type=_File)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"{NAME} of {state_dir} is damaged ({error}): remove it, a stream writes it anew"
        ) from None
    metrics = {path: math.nan if v is None else v for path, v in kept.metrics.items()}
    return Recorded(kept.at_ms, kept.window, metrics)
