"""Whether a candidate may be served: finite, and not worse on people nobody learned from."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ray_rec.features.arrays import Float32
from ray_rec.model.config import ModelConfig
from ray_rec.model.servable import ITEMS, known_popularity
from ray_rec.registry import Gate as Verdict
from ray_rec.training.held_out import HeldOut, Panel

Tensors = Mapping[str, Tensor]


class Gate:
    """Keeps the rolling held-out set and compares candidates with the version in service.

    Args:
        model: the network's configuration.
        num_queries: newest held-out queries to ask.
        margin: share by which the candidate's loss may exceed the incumbent's.
    """

    def __init__(self, model: ModelConfig, num_queries: int, margin: float) -> None:
        self._model, self._num_queries, self._margin = model, num_queries, margin
        self.rows: pa.Table | None = None

    def add(self, rows: pa.Table) -> None:
        """Take newly seen example rows of held-out users; the oldest leave."""
        if rows.num_rows:
            both = rows if self.rows is None else pa.concat_tables([self.rows, rows])
            self.rows = both.slice(max(0, both.num_rows - 4 * self._num_queries)).combine_chunks()

    def judge(
        self, candidate: Tensors, incumbent: Tensors | None, popularity: Float32, number: int
    ) -> Verdict:
        """Pass, or say why not.

        Args:
            candidate: tensors of the version to be.
            incumbent: tensors of the version in service, None before the first.
            popularity: float32 [num_items, P], as of now.
            number: seed of the items that both are asked about.
        """
        if not _finite(candidate):
            return Verdict(False, "the candidate has weights that are not finite")
        if self.rows is None:
            return Verdict(True, "no held-out user was seen yet")
        num_known = min(len(t[f"{ITEMS}id"]) for t in (candidate, incumbent) if t is not None)
        panel = self._panel(self.rows, num_known, popularity, number)
        if panel is None:
            return Verdict(True, "no held-out query was seen yet")
        return self._compare(candidate, incumbent, panel)

    def loss(self, tensors: Tensors, popularity: Float32, number: int) -> float | None:
        """Return the mean loss of a model's held-out queries, in nats; None where there are none.

        Of the newest ones, as `judge` asks; losses of the same `number` and rows compare.
        """
        if self.rows is None:
            return None
        panel = self._panel(self.rows, len(tensors[f"{ITEMS}id"]), popularity, number)
        return None if panel is None else panel.recall_loss(tensors, self._model)

    def _panel(
        self, rows: pa.Table, num_items: int, popularity: Float32, number: int
    ) -> Panel | None:
        """Return the newest queries among the first items, None where there are none."""
        held_out = HeldOut.newest(rows, self._num_queries).below(num_items)
        if not len(held_out.target):
            return None
        known = known_popularity(popularity, num_items).numpy()
        return Panel.draw(held_out, known, self._model, number)

    def _compare(self, candidate: Tensors, incumbent: Tensors | None, panel: Panel) -> Verdict:
        new = panel.recall_loss(candidate, self._model)
        metrics = {"candidate_loss": new, "queries": float(len(panel.questions.histories))}
        if not np.isfinite(new):
            return Verdict(False, "the candidate's held-out loss is not finite", metrics)
        if incumbent is None:
            return Verdict(True, "first version", metrics)
        old = metrics["incumbent_loss"] = panel.recall_loss(incumbent, self._model)
        if new > old * (1 + self._margin):
            reason = f"held-out loss {new:.4f} against {old:.4f} of the version in service"
            return Verdict(False, f"{reason}, over the margin of {self._margin:.0%}", metrics)
        return Verdict(True, "within the margin of the version in service", metrics)


def _finite(tensors: Tensors) -> bool:
    """Whether all numbers are finite, but prices, which may be unknown; a sum shows what is not."""
    return all(
        bool(torch.isfinite(tensor.sum()))
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and name != f"{ITEMS}price"
    )
