"""Questions of people whom nobody learned from, and what a model's answers to them cost.

A question is asked of a part of the catalogue: its own items, and a draw that stands for all
others. So a judgement costs the same however large the catalogue is. What they were shown and did
keeps the click head's probabilities calibrated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ray_rec.features.arrays import Float32, Int64, lists
from ray_rec.features.examples import collate
from ray_rec.features.histories import History
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemTable
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.model.servable import Servable
from ray_rec.training.metrics import histories_of
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Draw, Negatives
from ray_rec.training.steps import make_step

JUDGED_ITEMS = 2_048
"""Items that are drawn; up to so many the whole catalogue is asked."""

_CHUNK_ROWS = 256
_NO_DRAW = Draw(np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class HeldOut:
    """Questions whose answers are known: `targets[i]` is an item that query i was followed by.

    Attributes:
        histories: what was known before each query, [Q].
        at_ms: time of each query, int64 [Q].
        query: index of the query of each target, int64 [T].
        target: model row of each target, int64 [T].
    """

    histories: list[History]
    at_ms: Int64
    query: Int64
    target: Int64

    @classmethod
    def newest(cls, rows: pa.Table, num_queries: int) -> Self:
        """Take the newest `num_queries` queries with recall targets out of example rows."""
        batch = collate(rows, num_outcomes=0)
        asked = np.unique(batch.target_query)
        chosen = asked[np.argsort(batch.query_ts[asked], kind="stable")[-num_queries:]]
        place = np.full(len(batch.query_row), -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[batch.target_query] >= 0
        return cls(
            histories_of(batch, chosen),
            batch.query_ts[chosen],
            place[batch.target_query[kept]],
            batch.target_item[kept],
        )

    def below(self, num_items: int) -> Self:
        """Return the questions as one who knows the first `num_items` rows only would hear them."""
        seen = [(h, h.item < num_items) for h in self.histories]
        known = self.target < num_items
        return replace(
            self,
            histories=[History(h.item[kept], h.type[kept], h.ts[kept]) for h, kept in seen],
            query=self.query[known],
            target=self.target[known],
        )

    def items(self) -> Int64:
        """Return the distinct rows of all histories and targets, ascending."""
        items = [h.item.astype(np.int64) for h in self.histories]
        return np.unique(np.concatenate([*items, self.target]))


@dataclass(frozen=True)
class Panel:
    """Questions in places among the items [n] that they are asked of.

    Attributes:
        rows: model row of each item, ascending, int64 [n].
        questions: with places for rows.
        popularity: of these items, float32 [n, P].
        log_weight: log of how many items each stands for, float32 [n].
    """

    rows: Int64
    questions: HeldOut
    popularity: Float32
    log_weight: Float32

    @classmethod
    def draw(cls, held_out: HeldOut, popularity: Float32, config: ModelConfig, number: int) -> Self:
        """Draw the items for questions about rows of `popularity` [N, P]; `number` is the seed."""
        sized = replace(config, negatives=JUDGED_ITEMS, exact_items=JUDGED_ITEMS)
        drawn, own = Negatives(popularity, sized, number).draw(0), held_out.items()
        rows = np.union1d(drawn.row, own)
        log_weight = np.zeros(len(rows), np.float32)
        log_weight[np.searchsorted(rows, drawn.row)] = -drawn.log_chance
        log_weight[np.searchsorted(rows, own)] = 0.0
        places = [
            History(np.searchsorted(rows, h.item).astype(np.int32), h.type, h.ts)
            for h in held_out.histories
        ]
        target = np.searchsorted(rows, held_out.target)
        questions = replace(held_out, histories=places, target=target)
        return cls(rows, questions, popularity[rows], log_weight)

    def recall_loss(self, tensors: Mapping[str, Tensor], config: ModelConfig) -> float:
        """Mean negative log softmax of the targets, in nats, over the catalogue by its stand-ins.

        The sum over the catalogue is estimated without bias (Horvitz and Thompson 1952), and alike
        for all who are asked by this panel.
        """
        asked = self.questions
        servable = Servable.from_tensors(tensors, config, torch.from_numpy(self.rows))
        scores = torch.from_numpy(
            servable.recall_batch(asked.histories, asked.at_ms, self.popularity)
        )
        total = torch.logsumexp(scores + torch.from_numpy(self.log_weight), dim=1)
        return float((total[asked.query] - scores[asked.query, asked.target]).double().mean())


def calibrate(model: MultiTaskModel, items: ItemTable, rows: pa.Table) -> None:
    """Fit the click head's calibration to example rows of people whom nobody learned from."""
    if not model.calibration.is_learned:
        return
    shown = rows.filter(pa.array(lists(rows, "shown_item")[1] > 0))
    model.eval()
    for start in range(0, shown.num_rows, _CHUNK_ROWS):
        model.calibration.learn(*_shown(model, items, shown.slice(start, _CHUNK_ROWS)))


@torch.no_grad()
def _shown(model: MultiTaskModel, items: ItemTable, rows: pa.Table) -> tuple[Tensor, Tensor]:
    """Return the click head's logits as they would be served, and the labels, [S, O] each."""
    batch = collate(rows, model.config.num_outcomes)
    # what is shown has the popularity of its own moment
    once = Moments.once(np.zeros((len(items), 0), np.float32))
    of, step = make_step(batch, _NO_DRAW, once, items.id.device, items.id.dtype)
    index = torch.from_numpy(of).to(items.id.device)
    unused = torch.from_numpy(once.popularity).to(items.id)
    seen = items.gather(index, unused, model.config.id_prior)
    shown = replace(step.shown, position=None)  # as served
    logits = model.shown_logits(seen, model.view(seen, step.queries), shown)
    return logits, step.shown_labels
