"""What a run continues from: weights, optimizer, window number and state, in one folder."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import safetensors.torch
import torch

from ray_rec.errors import StateError
from ray_rec.registry.files import table_from_bytes, table_to_bytes

_META, _LEARNER, _ROWS, _HELD_OUT = "meta.json", "learner.safetensors", "rows.arrow", "gate.arrow"
_STATE = "state-"


@dataclass(frozen=True)
class TrainerCheckpoint:
    """Everything before window `number`.

    Attributes:
        number: the next window.
        learner: `Learner.state()`.
        rows: item_id of each model row.
        held_out: the gate's rolling set (EXAMPLES_SCHEMA), None before any.
        state: `FeatureState.snapshot()`.
    """

    number: int
    learner: dict[str, torch.Tensor]
    rows: list[str]
    held_out: pa.Table | None
    state: dict[str, pa.Table]

    def write(self, folder: Path) -> None:
        """Write into an empty `folder`; the caller makes the folder visible as a whole."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.learner.items()}
        safetensors.torch.save_file(tensors, folder / _LEARNER)
        rows = pa.table({"item_id": pa.array(self.rows, pa.string())})
        (folder / _ROWS).write_bytes(table_to_bytes(rows))
        if self.held_out is not None:
            (folder / _HELD_OUT).write_bytes(table_to_bytes(self.held_out))
        for name, table in self.state.items():
            (folder / f"{_STATE}{name}.arrow").write_bytes(table_to_bytes(table))
        (folder / _META).write_bytes(msgspec.json.encode({"number": self.number}))

    @classmethod
    def read(cls, folder: Path) -> "TrainerCheckpoint":
        """Read what `write` wrote; StateError when `folder` is not a whole checkpoint."""
        try:
            meta = msgspec.json.decode((folder / _META).read_bytes(), type=dict[str, int])
            held_out = folder / _HELD_OUT
            return cls(
                number=meta["number"],
                learner=safetensors.torch.load_file(folder / _LEARNER),
                rows=[str(row) for row in _table(folder / _ROWS)["item_id"].to_pylist()],
                held_out=_table(held_out) if held_out.exists() else None,
                state={
                    path.stem.removeprefix(_STATE): _table(path)
                    for path in sorted(folder.glob(f"{_STATE}*.arrow"))
                },
            )
        except (OSError, KeyError, msgspec.MsgspecError, pa.ArrowInvalid) as error:
            raise StateError(
                f"{folder.name} is not a whole checkpoint ({error}); remove it so that the run "
                "continues from an older one"
            ) from error


def _table(path: Path) -> pa.Table:
    return table_from_bytes(path.read_bytes())
