"""Examples of older windows, kept to be learned again beside newer ones.

Which windows is the plan's decision; which of their rows, and in which step, is drawn from a hash
of the new window's number and the row, so that a repetition draws alike.
"""

from collections.abc import Callable
from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import StateError
from ray_rec.features.arrays import arrow, mix
from ray_rec.features.examples import EXAMPLES_SCHEMA, row_keys
from ray_rec.log.window import Window
from ray_rec.registry.files import table_from_bytes, table_to_bytes
from ray_rec.registry.store import Store

_DRAWS = 8
"""Times as many draws as windows wanted: enough where most of them are usable."""


def rehearsed(
    number: int, count: int, horizon: int, usable: Callable[[int], bool]
) -> tuple[int, ...]:
    """Return the older windows that window `number` replays: up to `count`, drawn by hash.

    The j-th draw is a hash of (number, j) among the last `horizon` windows; what is not usable, or
    drawn already, is passed over. The window just before is never drawn: with a backlog this plan
    is decided while that one is learned, and it may yet diverge.

    >>> rehearsed(50, 3, 20, lambda older: older % 2 == 0)
    (48, 40, 30)
    >>> rehearsed(1, 3, 20, lambda older: True)
    ()
    """
    oldest = max(0, number - horizon)
    chosen: list[int] = []
    draws = _DRAWS * count if number - 1 > oldest else 0
    for j in range(draws):
        drawn = int(mix(np.full(1, number), np.full(1, j))[0])
        older = oldest + drawn % (number - 1 - oldest)
        if older not in chosen and usable(older):
            chosen.append(older)
        if len(chosen) == count:
            break
    return tuple(chosen)


class Rehearsal:
    """Learned rows by window under one fsspec URL.

    Args:
        url: the folder.
        ratio: replayed rows for each new row, at most.
    """

    def __init__(self, url: str, ratio: float) -> None:
        self._store, self._ratio = Store(url), ratio

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return the kept rows of a run."""
        return cls(f"{config.state_dir}/examples", config.training.replay_ratio)

    def put(self, number: int, learned: pa.Table) -> None:
        """Keep the rows that window `number` gave to learning, without what it replayed itself."""
        self._store.write(_path(number), table_to_bytes(learned))

    def kept(self, number: int) -> bool:
        """Whether the rows of window `number` are kept."""
        return _path(number) in self._store.names("")

    def draw(self, window: Window, num_new: int, num_steps: int) -> pa.Table:
        """Return the rows replayed in `window` with their steps (EXAMPLES_SCHEMA).

        The rows with the smallest hashes, `ratio` times the new ones, spread over the same steps.

        Raises:
            StateError: a window that the plan names is not kept.
        """
        if not window.replay or not num_steps:
            return EXAMPLES_SCHEMA.empty_table()
        rows = pa.concat_tables([self._read(number) for number in window.replay])
        chance = mix(np.full(rows.num_rows, window.number), row_keys(rows))
        chosen = np.sort(np.argsort(chance, kind="stable")[: int(self._ratio * num_new)])
        step = (chance[chosen] % np.uint64(num_steps)).astype(np.int32)
        index = rows.schema.get_field_index("step")
        field = EXAMPLES_SCHEMA.field("step")
        return rows.take(chosen).set_column(index, field, arrow(step, pa.int32()))

    def forget(self, before: int) -> None:
        """Drop the rows of windows before `before`."""
        for name in self._store.names(""):
            stem = name.partition(".")[0]
            if stem.isdigit() and int(stem) < before:
                self._store.remove(name)

    def _read(self, number: int) -> pa.Table:
        data = self._store.read(_path(number))
        if data is None:
            raise StateError(
                f"window {number} is to be replayed, but {self._store.url} has it no more; "
                "set training.replay_windows=0, or continue from an older checkpoint"
            )
        return table_from_bytes(data)


def _path(number: int) -> str:
    return f"{number:012d}.arrow"
