"""Sums that workers can add, and what is measured before a window is learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ray_rec.features.examples import Batch
from ray_rec.features.histories import History
from ray_rec.model.servable import Servable
from ray_rec.model.shown import Candidates

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

NAMES = ("recall_loss", "hr@10", "ndcg@10", "click_loss", "auc")
CHUNK_QUERIES = 64
TOP = 10


@dataclass(frozen=True)
class Metrics:
    """(sum, weight) by name; adding two gives the metrics of both."""

    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __add__(self, other: "Metrics") -> "Metrics":
        out = dict(self.sums)
        for name, (total, weight) in other.sums.items():
            before = out.get(name, (0.0, 0.0))
            out[name] = (before[0] + total, before[1] + weight)
        return Metrics(out)

    def summary(self) -> dict[str, float]:
        """Return the means; what has no weight is left out."""
        return {name: total / weight for name, (total, weight) in self.sums.items() if weight}

    def pack(self) -> Tensor:
        """Return float64 [len(NAMES), 2] for an exchange."""
        return torch.tensor([self.sums.get(n, (0.0, 0.0)) for n in NAMES], dtype=torch.float64)

    @classmethod
    def unpack(cls, packed: Tensor) -> "Metrics":
        """Read what `pack` made."""
        pairs = zip(NAMES, packed.tolist(), strict=True)
        return cls({name: (total, weight) for name, (total, weight) in pairs if weight})


def measure(servable: Servable, batch: Batch, popularity: npt.NDArray[np.float32]) -> Metrics:
    """Rank every target among the whole catalogue and every shown item among the shown ones.

    Ties count half: rank = 1 + greater + 0.5 · equal. The AUC weighs as many pairs as it compares.
    """
    return _recall(servable, batch, popularity) + _clicks(servable, batch)


def histories_of(batch: Batch, queries: Int64) -> list[History]:
    """Return what each of some queries sees."""
    places = [(batch.query_row[query], batch.query_context[query]) for query in queries]
    return [
        History(batch.item[row, :end].astype(np.int32), batch.type[row, :end], batch.ts[row, :end])
        for row, end in places
    ]


def _recall(servable: Servable, batch: Batch, popularity: npt.NDArray[np.float32]) -> Metrics:
    total = Metrics()
    asked = np.unique(batch.target_query)
    for at in range(0, len(asked), CHUNK_QUERIES):
        queries = asked[at : at + CHUNK_QUERIES]
        mine = np.isin(batch.target_query, queries)
        query = np.searchsorted(queries, batch.target_query[mine])
        scores = servable.recall_batch(
            histories_of(batch, queries), batch.query_ts[queries], popularity
        )
        total += ranked(torch.from_numpy(scores), query, batch.target_item[mine])
    return total


def ranked(scores: Tensor, query: Int64, target: Int64) -> Metrics:
    """Return recall_loss, hr@10 and ndcg@10 of targets among all items of scores [Q, N]."""
    wanted = scores[query, target]
    loss = torch.logsumexp(scores, 1)[query] - wanted
    bar = scores.topk(min(TOP, scores.shape[1]), dim=1).values[query, -1]
    good = torch.nonzero(wanted >= bar)[:, 0]  # no other can be among the first ten
    rows, value = scores[query[good]], wanted[good, None]
    rank = 1 + (rows > value).sum(1) + 0.5 * ((rows == value).sum(1) - 1)
    hit = rank[rank <= TOP]
    count = float(len(wanted))
    return Metrics(
        {
            "recall_loss": (float(loss.double().sum()), count),
            "hr@10": (float(len(hit)), count),
            "ndcg@10": (float((1 / torch.log2(1 + hit.double())).sum()), count),
        }
    )


def predicted(servable: Servable, batch: Batch) -> Float32:
    """Return the probabilities [S, O] of a batch's shown items, as of when they were shown."""
    return servable.click_batch(*shown_of(batch))


def shown_of(batch: Batch) -> tuple[list[History], Int64, Candidates]:
    """Return who was shown what and when in a batch, as `Servable.click_batch` is asked."""
    asked = np.unique(batch.shown_query)
    shown = Candidates(
        query=np.searchsorted(asked, batch.shown_query),
        item=batch.shown_item,
        popularity=batch.shown_popularity,
        rates=batch.shown_rates,
        placement=batch.shown_placement,
    )
    return histories_of(batch, asked), batch.query_ts[asked], shown


def _clicks(servable: Servable, batch: Batch) -> Metrics:
    if not len(batch.shown_query):
        return Metrics()
    p = predicted(servable, batch)
    p, y = p.astype(np.float64).clip(1e-7, 1 - 1e-7), batch.shown_labels
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(1)
    answered = y.max(1) > 0
    likeliest = 1 - np.prod(1 - p, axis=1)
    pairs = float(answered.sum()) * float((~answered).sum())
    sums = {"click_loss": (float(loss.sum()), float(len(loss)))}
    if pairs:
        sums["auc"] = (auc(likeliest, answered) * pairs, pairs)
    return Metrics(sums)


def auc(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative, ties counted half.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    ordered = np.sort(score[~positive])
    below = np.searchsorted(ordered, score[positive], side="left")
    ties = np.searchsorted(ordered, score[positive], side="right") - below
    return float((below + 0.5 * ties).mean() / len(ordered))
