"""Tables, tensors and rows as bytes: Arrow IPC files, and safetensors without metadata."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import safetensors.torch
import torch

TENSORS, ROWS = "model.safetensors", "rows.arrow"


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


def encode_version(tensors: Mapping[str, torch.Tensor], rows: Sequence[str]) -> dict[str, bytes]:
    """Return the files of a version by name.

    The tensors are saved without metadata: with several metadata keys the bytes differ each time.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return {
        TENSORS: safetensors.torch.save(plain),
        ROWS: table_to_bytes(pa.table({"item_id": pa.array(rows, pa.string())})),
    }


def decode_version(files: Mapping[str, bytes]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Read what `encode_version` made."""
    rows = [str(row) for row in table_from_bytes(files[ROWS]).column("item_id").to_pylist()]
    return safetensors.torch.load(files[TENSORS]), rows
