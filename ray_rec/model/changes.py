"""Tables of which some rows changed: how a version is told by what differs from the one before."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Rows of a table as they are now; those from its end on are appended, without a gap.

    Attributes:
        row: int64 [m], distinct.
        value: [m, ...].
    """

    row: Tensor
    value: Tensor


Changes = Mapping[str, Tensor | Rows]
"""By name: a tensor replaces the whole, `Rows` some of a table's rows; the rest stays as it is."""


def merged(base: Mapping[str, Tensor], changes: Sequence[Changes]) -> dict[str, Tensor]:
    """Return the tensors after `changes`, oldest first; `base` stays as it is.

    What no change touches is shared with `base`; a touched table is copied once, however many
    changes there are.

    Raises:
        KeyError: rows are given of a table that is not there.
    """
    out, own = dict(base), set[str]()
    for change in changes:
        for name, new in change.items():
            if isinstance(new, Tensor):
                out[name] = new
                own.discard(name)
            elif len(new.row):
                if name not in own:
                    out[name] = _room(out[name], _length(name, len(out[name]), changes))
                    own.add(name)
                out[name][new.row] = new.value.to(out[name].dtype)
    return out


def _length(name: str, length: int, changes: Sequence[Changes]) -> int:
    """Return how long a table will be in the end."""
    rows = [new.row for change in changes if isinstance(new := change.get(name), Rows)]
    return max(length, *(int(row.max()) + 1 for row in rows if len(row)))


def _room(table: Tensor, length: int) -> Tensor:
    out = torch.empty(length, *table.shape[1:], dtype=table.dtype)
    out[: len(table)] = table
    out[len(table) :] = 0
    return out
