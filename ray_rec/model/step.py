"""What one step of learning asks: queries with their targets, and items shown with their outcomes.

Shapes: Q queries, T recall targets, S shown items, C negatives, O outcomes, H horizons. Items are
given as places in an `ItemSlice`.
"""

from dataclasses import dataclass

from torch import Tensor

from ray_rec.model.view import Queries


@dataclass(frozen=True)
class ShownItems:
    """Items shown to queries: what is known of them is of the moment they were shown."""

    query: Tensor  # int64 [S] -> Q
    item: Tensor  # int64 [S]
    popularity: Tensor  # [S, P]
    rates: Tensor  # [S, F] of `responses.rates`
    placement: Tensor  # int64 [S] code, 0 where not told
    position: Tensor | None = None  # int64 [S] from 1, None when serving


@dataclass(frozen=True)
class Step:
    """One step's rows: queries, recall targets, shown items and the step's negatives."""

    queries: Queries
    target_query: Tensor  # int64 [T]
    target: Tensor  # int64 [T]
    shown: ShownItems
    shown_labels: Tensor  # [S, O]
    negative: Tensor  # int64 [C], distinct
    log_chance: Tensor  # [C] of being drawn; all zero when the negatives are the whole catalogue
