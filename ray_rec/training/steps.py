"""From example rows to what one step sees: rows of the catalogue become places among its items."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ray_rec.features.arrays import arrow
from ray_rec.features.examples import Batch, collate, row_keys
from ray_rec.model.step import ShownItems, Step
from ray_rec.model.view import Queries
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Draw

Int64 = npt.NDArray[np.int64]


def shares(examples: pa.Table, num_steps: int, num_outcomes: int) -> list[Batch | None]:
    """Return a worker's batch of each step from its rows, sorted by step; None without a row."""
    step = examples["step"].to_numpy()
    bounds = np.searchsorted(step, np.arange(num_steps + 1))
    return [
        collate(examples.slice(low, high - low), num_outcomes) if high > low else None
        for low, high in pairwise(bounds)
    ]


def sample(examples: pa.Table, share: float) -> pa.Table:
    """Return about `share` of the rows: those of small hash, the same on any worker."""
    if share >= 1:
        return examples
    return examples.filter(arrow(row_keys(examples) < np.uint64(share * 2**64)))


def make_step(
    batch: Batch, drawn: Draw, moments: Moments, device: torch.device, dtype: torch.dtype
) -> tuple[Int64, Step]:
    """Return the distinct item rows [U] of a step, and the step in places among them."""
    token = np.maximum(batch.item, 0)  # padding is never seen
    untold = (batch.item < 0) & (np.arange(token.shape[1]) < batch.length[:, None])
    rows = np.unique(
        np.concatenate([token.ravel(), batch.target_item, batch.shown_item, drawn.row])
    )

    def local(values: Int64) -> Tensor:
        return torch.from_numpy(np.searchsorted(rows, values)).to(device)

    def whole(values: Int64) -> Tensor:
        return torch.from_numpy(values).to(device)

    queries = Queries(
        token=local(token),
        type=whole(batch.type),
        ts=whole(batch.ts),
        row=whole(batch.query_row),
        context=whole(batch.query_context),
        at_ms=whole(batch.query_ts),
        moment=whole(moments.of(batch.query_ts)),
        told=torch.from_numpy(~untold).to(device) if untold.any() else None,
    )
    step = Step(
        queries=queries,
        target_query=whole(batch.target_query),
        target=local(batch.target_item),
        shown=ShownItems(
            query=whole(batch.shown_query),
            item=local(batch.shown_item),
            popularity=torch.from_numpy(batch.shown_popularity).to(device, dtype),
            rates=torch.from_numpy(batch.shown_rates).to(device, dtype),
            placement=whole(batch.shown_placement),
            position=whole(batch.shown_position),
        ),
        shown_labels=torch.from_numpy(batch.shown_labels).to(device, dtype),
        negative=local(drawn.row),
        log_chance=torch.from_numpy(drawn.log_chance).to(device, dtype),
    )
    return rows, step
