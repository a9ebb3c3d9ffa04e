"""What windows gave, kept until all passes over them are learned: rows, and popularity as it was.

Rows lie where those for replay do; what several passes need beside them lies next to them.
"""

from typing import Self

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import StateError
from ray_rec.features.arrays import numbers
from ray_rec.features.examples import WINDOW_ITEMS_SCHEMA, WindowExamples
from ray_rec.registry.files import table_from_bytes, table_to_bytes
from ray_rec.registry.store import Store
from ray_rec.training.epochs import learned

_ROWS, _HELD_OUT, _TAKEN, _PROMOTED, _POPULARITY = (
    "",
    ".held_out",
    ".taken",
    ".promoted",
    ".popularity",
)
_AT_MS = b"at_ms"


class Gathered:
    """Windows that were gathered, by number, under one fsspec URL."""

    def __init__(self, url: str) -> None:
        self._store = Store(url)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return those of a run."""
        return cls(f"{config.state_dir}/examples")

    def put(self, made: WindowExamples) -> None:
        """Keep what a window gave, but its items."""
        tables = {
            _HELD_OUT: made.examples.filter(made.examples["held_out"]),
            _TAKEN: made.taken.replace_schema_metadata({_AT_MS: str(made.at_ms)}),
            _PROMOTED: made.promoted,
            _POPULARITY: pa.table({f"h{h}": column for h, column in enumerate(made.popularity.T)}),
            _ROWS: learned(made.examples),
        }
        for part, table in tables.items():
            self._store.write(_path(made.number, part), table_to_bytes(table))

    def get(self, number: int) -> WindowExamples:
        """Return what window `number` gave, without items, responses and counts.

        Raises:
            StateError: it is not kept.
        """
        taken, popularity = self._read(number, _TAKEN), self._read(number, _POPULARITY)
        columns = [numbers(popularity, name) for name in popularity.column_names]
        return WindowExamples(
            number=number,
            examples=pa.concat_tables([self._read(number, _ROWS), self._read(number, _HELD_OUT)]),
            items=WINDOW_ITEMS_SCHEMA.empty_table(),
            popularity=np.stack(columns, axis=1),
            at_ms=int(taken.schema.metadata[_AT_MS]),
            responses=np.zeros((0, 0), np.int64),
            counts={},
            taken=taken,
            promoted=self._read(number, _PROMOTED),
        )

    def _read(self, number: int, part: str) -> pa.Table:
        data = self._store.read(_path(number, part))
        if data is None:
            raise StateError(
                f"window {number} is to be learned in a pass, but {self._store.url} has it no "
                "more; begin anew with a state_dir and registry of their own"
            )
        return table_from_bytes(data)


def _path(number: int, part: str) -> str:
    return f"{number:012d}{part}.arrow"
