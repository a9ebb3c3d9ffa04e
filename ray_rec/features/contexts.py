"""What a user had done strictly before an exposure: found when it arrives, mended while it waits.

A token of before may arrive after the exposure, and so may a wish; the context is whole when the
watermark has reached the exposure's time, so it does not depend on how the log was cut.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Int32,
    Int64,
    UInt64,
    among,
    first_of_groups,
    list_array,
    lists,
    mix,
    numbers,
    ragged_ranges,
    segment_search,
    starts_of,
)
from ray_rec.features.behaviour import Absorbed
from ray_rec.features.controls import ALWAYS, NEVER, Controls
from ray_rec.features.histories import Sequences
from ray_rec.features.records import ExposureRows

_TOKENS = ("item", "type", "ts")


def contexts(
    rows: ExposureRows,
    user_rows: Int32,
    sequences: Sequences,
    controls: Controls,
    history_length: int,
) -> tuple[Int64, Int64]:
    """Return (first place, length) of what each exposure's user had done strictly before it.

    `user_rows` are rows of Histories, -1 for a user without history.
    """
    begin, length = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    known = user_rows >= 0
    owner, ts = sequences.owner(user_rows[known]), rows.ts[known]
    low = sequences.place(owner, controls.erased_until(rows.user[known], ts) + 1)
    end = np.maximum(sequences.place(owner, ts), low)
    begin[known] = np.maximum(low, end - history_length)
    length[known] = end - begin[known]
    return begin, length


def mended(
    waiting: pa.Table, absorbed: Absorbed, controls: Controls, watermark_ms: int, length: int
) -> tuple[Bool, pa.Table]:
    """Return which waiting exposures the window's tokens and wishes change, and what they become.

    Exposures (OPEN_SCHEMA) newer than the watermark take new tokens from before them; what wishes
    erase goes from all.
    """
    user, ts = numbers(waiting, "user"), numbers(waiting, "ts")
    low, count = _new_before(absorbed, user, ts, watermark_ms)
    touched = count > 0
    if len(controls):
        touched |= controls.erased_until(user, ALWAYS) > NEVER
    if not touched.any():
        return touched, waiting.slice(0, 0)
    rows = waiting.filter(pa.array(touched))
    places, new = ragged_ranges(low[touched], count[touched]), absorbed.new
    old = {name: lists(rows, f"token_{name}") for name in _TOKENS}
    tokens = {n: np.concatenate([old[n][0], getattr(new, n)[places]]) for n in _TOKENS}
    of = np.arange(rows.num_rows)
    owner = np.concatenate([np.repeat(of, old["ts"][1]), np.repeat(of, count[touched])])
    order = np.lexsort((tokens["ts"], owner))  # stable: of one time, the new ones come later
    until = ts[touched][owner]
    order = order[~controls.erases(user[touched][owner], tokens["ts"], until)[order]]
    order = order[_newest(owner[order], length)]
    return touched, _with_tokens(rows, {n: v[order] for n, v in tokens.items()}, owner[order])


def without_own_outcomes(closed: pa.Table, exposure: Int64, outcomes: pa.Table) -> pa.Table:
    """Return exposures without the tokens of outcomes that they claim (of row `exposure` each).

    A visitor's clock that lags puts an outcome before its exposure; no example may see its labels.
    """
    item, ts = numbers(outcomes, "item"), numbers(outcomes, "ts")
    lags = ts < numbers(closed, "ts")[exposure]
    if not lags.any():
        return closed
    touched = np.isin(np.arange(closed.num_rows), exposure[lags])
    rows = closed.filter(pa.array(touched))
    tokens = {name: lists(rows, f"token_{name}")[0] for name in _TOKENS}
    owner = np.repeat(np.flatnonzero(touched), lists(rows, "token_ts")[1])
    own = np.isin(
        mix(owner, tokens["item"], tokens["ts"]), mix(exposure[lags], item[lags], ts[lags])
    )
    place = (np.cumsum(touched) - 1)[owner[~own]]
    rows = _with_tokens(rows, {n: v[~own] for n, v in tokens.items()}, place)
    return pa.concat_tables([closed.filter(pa.array(~touched)), rows])


def _new_before(
    absorbed: Absorbed, user: UInt64, ts: Int64, watermark_ms: int
) -> tuple[Int64, Int64]:
    """Return (first place, number) of each user's new tokens before a time after the watermark."""
    new = absorbed.new
    low, count = np.zeros(len(user), np.int64), np.zeros(len(user), np.int64)
    first = first_of_groups(new.owner)
    having = absorbed.user_hash[new.owner[first]]
    order = np.argsort(having)
    young = np.flatnonzero(among(user, having[order]) & (ts > watermark_ms))
    place = order[np.searchsorted(having[order], user[young])]
    low[young] = first[place]
    end = np.append(first[1:], len(new.ts))[place]
    count[young] = segment_search(new.ts, low[young], end, ts[young]) - low[young]
    return low, count


def _newest(owner: AnyArray, length: int) -> AnyArray:
    """Mark the last `length` of each run of equal owners."""
    end = np.cumsum(np.bincount(owner))
    out: AnyArray = end[owner] - np.arange(len(owner)) <= length
    return out


def _with_tokens(rows: pa.Table, tokens: dict[str, AnyArray], owner: AnyArray) -> pa.Table:
    offsets = starts_of(np.bincount(owner, minlength=rows.num_rows))
    for name, values in tokens.items():
        at = rows.schema.get_field_index(f"token_{name}")
        column: Any = list_array(values, offsets)
        rows = rows.set_column(at, rows.schema.field(at), column)
    return rows
