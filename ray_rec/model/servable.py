"""A version as it answers: what does not depend on the request is computed beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ray_rec.errors import ModelError
from ray_rec.features.histories import History
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemSlice
from ray_rec.model.recommender import MultiTaskModel, Queries, View
from ray_rec.model.text import Whitening

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MODEL, ITEMS, WHITENING = "model.", "items.", "whitening."

_BY_ROW = ("vector", "share", "price", "text_row")


@dataclass(frozen=True)
class _Tables:
    vector: Tensor  # [N, d]
    share: Tensor  # [N]
    price: Tensor  # [N]
    text_row: Tensor  # int64 [N]
    text: Tensor  # whitened [T, text_dim]


class Servable:
    """Scores of every item for a person; rows are those of the version, or as `permute` put them.

    Immutable and safe to use from several threads. Arrays in and out are numpy, on the CPU.
    """

    def __init__(self, model: MultiTaskModel, whitening: Whitening, tables: _Tables) -> None:
        self._model, self._whitening, self._tables = model, whitening, tables

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: ModelConfig) -> "Servable":
        """Make it of a version's tensors (`Learner.export`).

        Raises:
            ModelError: the tensors are not those of a model with this configuration.
        """
        model = MultiTaskModel(config)
        try:
            model.load_state_dict(tensors_under(tensors, MODEL))
            items, white = tensors_under(tensors, ITEMS), tensors_under(tensors, WHITENING)
            whitening = Whitening(white["mean"], white["projection"])
            count = items["count"]
            share = count / (count + config.id_prior)
            piece = ItemSlice(
                items["id"], share, items["text"], items["text_row"], share[:, None], items["price"]
            )
            with torch.inference_mode():
                vector = model.eval().item_vectors(piece)
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"the tensors do not fit the model's configuration ({error}); "
                "use the configuration in the version's manifest"
            ) from error
        return cls(
            model,
            whitening,
            _Tables(vector, share, items["price"], items["text_row"], items["text"]),
        )

    @property
    def num_items(self) -> int:
        """Items N that this can score."""
        return len(self._tables.vector)

    @property
    def raw_dim(self) -> int:
        """Width of the encoder's raw text vectors."""
        return len(self._whitening.mean)

    def is_finite(self) -> bool:
        """Whether all weights and item vectors are finite."""
        weights = [*self._model.parameters(), self._tables.vector]
        return all(bool(torch.isfinite(weight).all()) for weight in weights)

    @torch.inference_mode()
    def permute(self, rows: Int64, raw: Float32) -> "Servable":
        """Return a servable whose row j is this one's row rows[j].

        A row of -1 is a cold item: the j-th of them has the raw text vector raw[j]
        (float32 [number of -1, raw_dim]), and is served from its text alone.
        """
        index = torch.from_numpy(rows)
        cold = index < 0
        tables, taken = self._tables, index.clamp(min=0)
        white = self._whitening.apply(torch.from_numpy(raw))
        columns = {name: getattr(tables, name)[taken] for name in _BY_ROW}
        columns["vector"][cold] = self._model.tower(white)
        columns["share"][cold] = 0.0
        columns["price"][cold] = torch.nan
        columns["text_row"][cold] = len(tables.text) + torch.arange(len(white))
        return Servable(
            self._model,
            self._whitening,
            _Tables(**columns, text=torch.cat([tables.text, white])),
        )

    def recall(
        self, history: History, at_ms: int, popularity: Float32
    ) -> tuple[Float32, dict[str, Float32]]:
        """Return the recall scores of all items, float32 [N], and their parts by name, [N] each.

        `popularity` is float32 [at least N, horizons].
        """
        parts = self._parts([history], np.array([at_ms]), popularity)
        named = {name: part[0].numpy() for name, part in parts.items()}
        return np.sum(list(named.values()), axis=0), named

    def recall_batch(
        self, histories: Sequence[History], at_ms: Int64, popularity: Float32
    ) -> Float32:
        """Return recall scores float32 [Q, N] of several people."""
        parts = self._parts(histories, at_ms, popularity)
        scores: Float32 = torch.stack(list(parts.values())).sum(0).numpy()
        return scores

    @torch.inference_mode()
    def _parts(
        self, histories: Sequence[History], at_ms: Int64, popularity: Float32
    ) -> dict[str, Tensor]:
        """Return the parts of the recall scores, each [Q, N]."""
        tables, shape = self._tables, (len(histories), self.num_items)
        view, rows = self._view(histories, at_ms, popularity, np.zeros(0, np.int64))
        text = functional.normalize(tables.text, dim=1)
        repeat = torch.zeros(shape)
        query, token = torch.nonzero(view.seen, as_tuple=True)
        repeat[query, rows[view.token[query, token]]] = self._model.own_repeats(view)[query, token]
        parts = self._model.recall.parts(
            view.user @ tables.vector.T,
            torch.from_numpy(popularity[: self.num_items]),
            (view.text_last @ text.T)[:, tables.text_row],
            (view.text_mean @ text.T)[:, tables.text_row],
            repeat,
        )
        return {name: part.expand(shape) for name, part in parts.items()}

    @torch.inference_mode()
    def click(
        self, history: History, at_ms: int, popularity: Float32, candidates: Int64
    ) -> Float32:
        """Return the probability of each outcome of each candidate if shown, float32 [K, O]."""
        view, rows = self._view([history], np.array([at_ms]), popularity, candidates)
        item = torch.searchsorted(rows, torch.from_numpy(candidates))
        query = torch.zeros(len(candidates), dtype=torch.int64)
        logits = self._model.shown_logits(self._slice(rows, popularity), view, query, item, None)
        probabilities: Float32 = torch.sigmoid(logits).numpy()
        return probabilities

    def _view(
        self, histories: Sequence[History], at_ms: Int64, popularity: Float32, also: Int64
    ) -> tuple[View, Tensor]:
        """Run the trunk; the second value is the rows of the slice that the view's places mean."""
        newest = [_newest(history, self._model.config.max_length) for history in histories]
        length = np.array([len(h.item) for h in newest])
        shape = (len(newest), max(1, int(length.max(initial=0))))
        item, kind, ts = (np.zeros(shape, np.int64) for _ in range(3))
        for row, history in enumerate(newest):
            for target, column in zip((item, kind, ts), history, strict=True):
                target[row, : len(column)] = column
        rows = np.unique(np.concatenate([item.ravel(), also]))
        queries = Queries(
            token=torch.from_numpy(np.searchsorted(rows, item)),
            type=torch.from_numpy(kind),
            ts=torch.from_numpy(ts),
            row=torch.arange(len(newest)),
            context=torch.from_numpy(length),
            at_ms=torch.from_numpy(np.asarray(at_ms, np.int64)),
        )
        index = torch.from_numpy(rows)
        return self._model.view(self._slice(index, popularity), queries), index

    def _slice(self, rows: Tensor, popularity: Float32) -> ItemSlice:
        tables = self._tables
        vector = tables.vector[rows]
        return ItemSlice(
            id=vector,
            share=tables.share[rows],
            text=tables.text[tables.text_row[rows]],
            text_of=torch.arange(len(rows)),
            popularity=torch.from_numpy(popularity)[rows],
            price=tables.price[rows],
            vector=vector,
        )

    @torch.inference_mode()
    def similarity(self, row: int) -> Float32:
        """Return the cosine of every item's vector with one item's, float32 [N]."""
        unit = functional.normalize(self._tables.vector, dim=1)
        cosine: Float32 = (unit @ unit[row]).numpy()
        return cosine


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _newest(history: History, length: int) -> History:
    return History(history.item[-length:], history.type[-length:], history.ts[-length:])
