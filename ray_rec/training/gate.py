"""Whether a candidate may be served: finite, and not worse on people nobody learned from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from ray_rec.features.examples import collate
from ray_rec.features.histories import History
from ray_rec.model.servable import Servable
from ray_rec.registry import Gate as Verdict
from ray_rec.training.metrics import histories_of


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
    at_ms: np.ndarray
    query: np.ndarray
    target: np.ndarray

    @classmethod
    def newest(cls, rows: pa.Table, num_queries: int) -> "HeldOut":
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


class Gate:
    """Keeps the rolling held-out set and compares candidates with the version in service.

    Args:
        num_queries: newest held-out queries to ask.
        margin: share by which the candidate's loss may exceed the incumbent's.
    """

    def __init__(self, num_queries: int, margin: float, rows: pa.Table | None = None) -> None:
        self._num_queries, self._margin = num_queries, margin
        self.rows = rows

    def add(self, rows: pa.Table) -> None:
        """Take newly seen example rows of held-out users; the oldest leave."""
        if rows.num_rows:
            both = rows if self.rows is None else pa.concat_tables([self.rows, rows])
            self.rows = both.slice(max(0, both.num_rows - 4 * self._num_queries)).combine_chunks()

    def judge(
        self, candidate: Servable, incumbent: Servable | None, popularity: np.ndarray
    ) -> Verdict:
        """Pass, or say why not.

        Args:
            candidate: the model as it would be served.
            incumbent: the model in service, None before the first.
            popularity: float32 [num_items, horizons], as of now.
        """
        if not candidate.is_finite():
            return Verdict(False, "the candidate has weights that are not finite")
        if self.rows is None:
            return Verdict(True, "no held-out user was seen yet")
        held_out = HeldOut.newest(self.rows, self._num_queries)
        if incumbent is not None:
            known = held_out.target < incumbent.num_items
            held_out = HeldOut(
                held_out.histories, held_out.at_ms, held_out.query[known], held_out.target[known]
            )
        if not len(held_out.target):
            return Verdict(True, "no held-out query was seen yet")
        new = recall_loss(candidate, held_out, popularity)
        metrics = {"candidate_loss": new, "queries": float(len(held_out.histories))}
        if not np.isfinite(new):
            return Verdict(False, "the candidate's held-out loss is not finite", metrics)
        if incumbent is None:
            return Verdict(True, "first version", metrics)
        old = metrics["incumbent_loss"] = recall_loss(incumbent, held_out, popularity)
        if new > old * (1 + self._margin):
            reason = f"held-out loss {new:.4f} against {old:.4f} of the version in service"
            return Verdict(False, f"{reason}, over the margin of {self._margin:.0%}", metrics)
        return Verdict(True, "within the margin of the version in service", metrics)


def recall_loss(servable: Servable, held_out: HeldOut, popularity: np.ndarray) -> float:
    """Mean negative log softmax (in nats) of the held-out targets over the full catalogue."""
    scores = servable.recall_batch(
        held_out.histories, held_out.at_ms, popularity[: servable.num_items]
    )
    log_p = torch.log_softmax(torch.as_tensor(scores), dim=1).numpy()
    return float(-log_p[held_out.query, held_out.target].mean())
