"""Vectorised steps that the features share: stable hashes, ragged ranges, search in segments."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]
Column: TypeAlias = "pa.Array[Any]"


def hash_strings(values: Column) -> UInt64:
    """Return a 64-bit hash of each string (SipHash with a fixed key); null hashes like "".

    The same in every process, on every platform: who is held out depends on it.
    """
    filled: Any = values.fill_null("") if values.null_count else values
    objects = np.asarray(filled.to_numpy(zero_copy_only=False), dtype=object)
    return pd.util.hash_array(objects, categorize=False)


def mix(*parts: AnyArray) -> UInt64:
    """Return one well-spread uint64 for each row of integers (splitmix64 over the parts)."""
    out = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        out = out * np.uint64(0x9E3779B97F4A7C15) + part.astype(np.uint64)
        out += np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out ^= out >> np.uint64(31)
    return out


def starts_of(lengths: AnyArray) -> Int64:
    """Return [n+1] offsets of ragged rows: `[0, l0, l0+l1, …]`.

    >>> starts_of(np.array([2, 0, 3])).tolist()
    [0, 2, 2, 5]
    """
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def ragged_ranges(starts: AnyArray, lengths: AnyArray) -> Int64:
    """Return `[s0, s0+1, … s0+l0-1, s1, …]`, the places of ragged slices.

    >>> ragged_ranges(np.array([5, 9]), np.array([2, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    offsets = starts_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def segment_search(
    values: AnyArray, low: AnyArray, high: AnyArray, wanted: AnyArray | np.int64, side: str = "left"
) -> Int64:
    """Return for each i where `wanted[i]` belongs in the sorted slice `values[low[i]:high[i]]`.

    Like np.searchsorted, but each query has its own slice; places are absolute.

    >>> segment_search(np.array([1, 3, 0, 9]), np.array([0, 2]), np.array([2, 4]), np.array([3, 5]))
    array([1, 3])
    """
    lo, hi = low.astype(np.int64), high.astype(np.int64)
    if not len(values):
        return lo
    for _ in range(int((hi - lo).max(initial=0)).bit_length()):
        middle = (lo + hi) >> 1
        seen = values[np.minimum(middle, len(values) - 1)]
        right = (seen < wanted if side == "left" else seen <= wanted) & (lo < hi)
        lo = np.where(right, middle + 1, lo)
        hi = np.where(right, hi, middle)
    return lo


def among(hashes: UInt64, wanted: UInt64) -> Bool:
    """Return which hashes are in the sorted array `wanted`; quick when few of many are.

    >>> among(np.array([7, 3, 7], np.uint64), np.array([1, 7], np.uint64))
    array([ True, False,  True])
    """
    mask = np.uint64((16 << len(wanted).bit_length()) - 1)
    table = np.zeros(int(mask) + 1, np.bool_)
    table[wanted & mask] = True
    out: Bool = table[hashes & mask]
    maybe = hashes[out]
    place = np.searchsorted(wanted, maybe)
    out[out] = wanted[np.minimum(place, max(len(wanted) - 1, 0))] == maybe
    return out


def first_of_groups(*keys: AnyArray) -> Int64:
    """Return where groups of equal neighbours begin, in columns sorted by group.

    >>> first_of_groups(np.array([7, 7, 8]), np.array([1, 2, 2])).tolist()
    [0, 1, 2]
    """
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    change = np.zeros(len(keys[0]), np.bool_)
    change[0] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(change)


def grown(array: AnyArray, rows: int, fill: Any) -> AnyArray:
    """Return the array with room for `rows` rows: itself, or a copy at least twice as large."""
    if rows <= len(array):
        return array
    shape = (max(rows, 2 * len(array), 64), *array.shape[1:])
    # Zeros that nobody has touched take no memory, so the spare room costs nothing.
    lazily = array.dtype != object and not fill
    out = np.zeros(shape, array.dtype) if lazily else np.full(shape, fill, array.dtype)
    out[: len(array)] = array
    return out


def column(table: pa.Table, name: str) -> Any:
    """Return a column as one contiguous array."""
    chunked = table.column(name)
    if chunked.num_chunks == 1:
        return chunked.chunk(0)
    combined: Any = chunked.combine_chunks()
    # Offsets of one array end at 2**31, so Arrow may keep several chunks.
    return pa.concat_arrays(combined.chunks) if hasattr(combined, "chunks") else combined


def numbers(table: pa.Table, name: str, fill: float | None = None) -> AnyArray:
    """Return a number column as numpy; nulls become `fill`."""
    array = column(table, name)
    if array.null_count:
        array = array.fill_null(pa.scalar(fill, array.type))
    return np.asarray(array.to_numpy(zero_copy_only=False))


def arrow(values: AnyArray, kind: pa.DataType | None = None) -> Any:
    """Return values as an Arrow array (typed Any: the stubs know no array of a numpy type)."""
    return pa.array(values, kind)


def table_of(columns: dict[str, Any], schema: pa.Schema | None = None) -> pa.Table:
    """Return a table of numpy and Arrow columns."""
    return pa.table(columns, schema=schema)


def list_array(values: AnyArray, offsets: AnyArray) -> Column:
    """Return a list column from flat values and [rows+1] offsets."""
    out: Column = pa.ListArray.from_arrays(arrow(offsets, pa.int32()), arrow(values))
    return out


def lists(table: pa.Table, name: str) -> tuple[AnyArray, Int64]:
    """Return a list column as (flat values, lengths int64)."""
    array = column(table, name)
    lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False)), lengths
