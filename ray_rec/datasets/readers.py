"""Rows of Parquet, CSV and JSON lines as plain dictionaries, one by one and numbered.

A row that cannot even be read is handed on with its problem, so that nothing is lost in silence.
"""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ray_rec.errors import DataError

FORMATS = ".parquet, .csv, .tsv or .jsonl (the last three also as .gz, .bz2 or .zst)"
_PACKED = {".gz", ".bz2", ".zst"}
_BATCH_ROWS = 50_000


class Row(NamedTuple):
    """A row of a file, counted from 1 (lines in JSON lines; without the header in CSV).

    `problem` is empty, or says why the row could not be read; then `values` hold what there was.
    """

    number: int
    values: dict[str, Any]
    problem: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file whose name says what it is; absent values are None or left out.

    Raises:
        DataError: the file is missing, of an unknown kind, or not what its name says.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in _PACKED), "")
    readers = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".tsv": _csv,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_lines,
    }
    if kind not in readers:
        raise DataError(f"{path}: tables are read from {FORMATS}; rename or convert the file")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing {FORMATS}")
    try:
        yield from readers[kind](path)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path} is not a {kind} file that can be read: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            names = batch.schema.names
            for cells in zip(*map(_plain, batch.columns), strict=True):
                number += 1
                yield Row(number, dict(zip(names, cells, strict=True)))


def _plain(column: "pa.Array[Any]") -> list[Any]:
    """Return times as ms and NaN as None: the forms that records use."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    cells: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if cell is not None and math.isnan(cell) else cell for cell in cells]
    return cells


def _csv(path: Path) -> Iterator[Row]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter)
        header = next(reader, [])
        for number, cells in enumerate(reader, 1):
            values = {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
            if len(cells) == len(header):
                yield Row(number, values)
            elif cells:
                yield Row(number, values, f"{len(cells)} columns, the header has {len(header)}")


def _json_lines(path: Path) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield Row(number, {"line": line.decode(errors="replace").rstrip()}, str(error))
                continue
            if isinstance(values, dict):
                yield Row(number, values)
            else:
                yield Row(number, {"line": values}, "not a JSON object")


def _open(path: Path) -> Any:
    """Return the file as a buffered binary stream, unpacked if its name says that it is packed."""
    return io.BufferedReader(cast(io.RawIOBase, pa.input_stream(str(path), compression="detect")))
