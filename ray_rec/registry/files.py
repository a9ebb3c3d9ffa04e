"""Tables, tensors and rows as bytes: Arrow IPC files, and safetensors without metadata."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import safetensors.torch
import torch

from ray_rec.model.changes import Changes, Rows

TENSORS, ROWS = "model.safetensors", "rows.arrow"
_AT = "@rows"
"""`items.id@rows` says which rows of the table `items.id` holds."""


def table_to_bytes(table: pa.Table) -> bytes:
    """Return the table as an lz4 compressed Arrow IPC file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def table_from_bytes(data: bytes) -> pa.Table:
    """Read what `table_to_bytes` wrote."""
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        return reader.read_all()


def flat(changes: Changes) -> dict[str, torch.Tensor]:
    """Return contiguous tensors on the CPU, those that tell rows by a name of their own."""
    named: dict[str, torch.Tensor] = {}
    for name, change in changes.items():
        if isinstance(change, Rows):
            # a copy: tables may share one index, safetensors takes no tensor twice
            named |= {name: change.value, name + _AT: change.row.clone()}
        else:
            named[name] = change
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def encode_version(tensors: Mapping[str, torch.Tensor], rows: Sequence[str]) -> dict[str, bytes]:
    """Return the files of a version by name, `tensors` being `flat`.

    The tensors are saved without metadata: with several metadata keys the bytes differ each time.
    """
    return {
        TENSORS: safetensors.torch.save(dict(tensors)),
        ROWS: table_to_bytes(pa.table({"item_id": pa.array(rows, pa.string())})),
    }


def decode_version(files: Mapping[str, bytes]) -> tuple[Changes, list[str]]:
    """Read what `encode_version` made."""
    named = safetensors.torch.load(files[TENSORS])
    changes = {
        name: Rows(named[name + _AT], value) if name + _AT in named else value
        for name, value in named.items()
        if not name.endswith(_AT)
    }
    rows = [str(row) for row in table_from_bytes(files[ROWS]).column("item_id").to_pylist()]
    return changes, rows
