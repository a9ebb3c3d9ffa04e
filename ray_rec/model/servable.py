"""A version as it answers: what does not depend on the request is computed beforehand."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ray_rec.errors import ModelError
from ray_rec.features.histories import History
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemSlice
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.model.served import ServedItems
from ray_rec.model.shown import Candidates, ShownFeatures, shown_features
from ray_rec.model.text import Whitening
from ray_rec.model.view import Queries, View

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MODEL, ITEMS, WHITENING = "model.", "items.", "whitening."


class Servable:
    """Scores of every item for a person; rows are those of the version, or as `permute` put them.

    Immutable and safe to use from several threads. Arrays in and out are numpy, on the CPU.
    Popularity is float32 [rows, P]; items beyond its rows count as never bought, and beyond
    those of `covisits` as in nobody's company.
    """

    def __init__(self, model: MultiTaskModel, whitening: Whitening, items: ServedItems) -> None:
        self._model, self._whitening, self._items = model, whitening, items

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: ModelConfig, rows: Tensor | None = None
    ) -> "Servable":
        """Make it of a version's tensors (`Learner.export`), which must not change afterwards.

        With `rows` (int64 [n]) it is a copy that scores these items alone: row j is rows[j].

        Raises:
            ModelError: the tensors are not those of a model with this configuration.
        """
        model = MultiTaskModel(config).eval()
        try:
            model.load_state_dict(tensors_under(tensors, MODEL))
            white = tensors_under(tensors, WHITENING)
            whitening = Whitening(white["mean"], white["projection"])
            items = ServedItems.of(model, tensors_under(tensors, ITEMS), rows)
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"the tensors do not fit the model's configuration ({error}); "
                "use the configuration in the version's manifest"
            ) from error
        return cls(model, whitening, items)

    @property
    def num_items(self) -> int:
        """Items N that this can score."""
        return len(self._items)

    @property
    def raw_dim(self) -> int:
        """Width of the encoder's raw text vectors."""
        return len(self._whitening.mean)

    @torch.inference_mode()
    def permute(self, rows: Int64, raw: Float32, groups: Int64) -> "Servable":
        """Return a servable whose row j is this one's row rows[j].

        A row of -1 is a cold item: the j-th of them has the raw text vector raw[j]
        (float32 [number of -1, raw_dim], zeros where it has no text), and is served from its text.
        Its keys (`catalogue.group_keys`) are groups[j], int64 [number of -1, G].
        """
        index = torch.from_numpy(rows)
        if torch.equal(index, torch.arange(self.num_items)):
            return self
        white = self._whitening.apply(torch.from_numpy(raw))
        vector = self._model.tower(white)
        items = self._items.permuted(index, vector, white, torch.from_numpy(groups))
        return Servable(self._model, self._whitening, items)

    def recall(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        covisits: Float32 | None = None,
        sought: Float32 | None = None,
    ) -> tuple[Float32, dict[str, Float32]]:
        """Return the recall scores of all items, float32 [N], and their parts by name, [N] each.

        Text is likened to that `sought`, a raw vector [raw_dim], where it is given; `covisits` is
        what goes with the person's last items (`Covisits.support`), [rows].
        """
        company = None if covisits is None else covisits[None]
        parts = self._parts([history], np.array([at_ms]), popularity, company, sought)
        scores = sum(parts.values(), torch.zeros(()))[0]
        return scores.numpy(), {name: part[0].numpy() for name, part in parts.items()}

    @torch.inference_mode()
    def recall_batch(
        self,
        histories: Sequence[History],
        at_ms: Int64,
        popularity: Float32,
        covisits: Float32 | None = None,
    ) -> Float32:
        """Return recall scores float32 [Q, N] of several people; `covisits` is [Q, rows]."""
        parts = self._parts(histories, at_ms, popularity, covisits)
        scores = parts.pop("taste")
        for part in parts.values():
            scores += part
        out: Float32 = scores.numpy()
        return out

    @torch.inference_mode()
    def _parts(
        self,
        histories: Sequence[History],
        at_ms: Int64,
        popularity: Float32,
        covisits: Float32 | None,
        words: Float32 | None = None,
    ) -> dict[str, Tensor]:
        """Return the parts of the recall scores, [Q, N], but [1, N] of what popularity tells."""
        items, head = self._items, self._model.recall
        view, rows, _ = self._view(histories, at_ms, np.zeros(0, np.int64))
        known = known_popularity(popularity, self.num_items)
        own, item = view.own, rows[view.own.item]
        repeat = torch.zeros(len(histories), self.num_items)
        habits = self._model.habits(view, own.query, own.item)
        repeat[own.query, item] = head.repeats(own.values, known[item], habits)
        taste = head.taste(view.user) @ items.vector.T
        if head.tastes_new:
            taste[own.query, item] = 0.0
        profile = head.profile(view.text_last, view.text_mean)
        if words is not None:
            unit = functional.normalize(self._whitening.apply(torch.from_numpy(words[None])))
            profile = head.profile(unit, unit)
        profile = profile * items.text.shape[1] ** -0.5
        alike = (profile @ items.text.T).index_select(1, items.text_row)
        parts = {
            "taste": taste,
            **{name: part[None] for name, part in head.popular_parts(known).items()},
            "text": alike.mul_(head.emphasis(items.share)),
            "repeat": repeat,
        }
        if covisits is not None:
            company = known_popularity(covisits.T, self.num_items).T
            parts["covisits"] = company * self._model.config.late_covisits
        return parts

    def click(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        candidates: Int64,
        placement: Int64 | None = None,
    ) -> Float32:
        """Return the probability of each outcome of each candidate if shown, float32 [K, O].

        `placement` are codes (`records.placement_codes`) [K] of where; None: not told.
        """
        shown = Candidates(
            query=np.zeros(len(candidates), np.int64),
            item=candidates,
            popularity=known_popularity(popularity, self.num_items)[candidates].numpy(),
            rates=self._rates(candidates),
            placement=np.zeros_like(candidates) if placement is None else placement,
        )
        return self.click_batch([history], np.array([at_ms]), shown)

    @torch.inference_mode()
    def click_batch(self, histories: Sequence[History], at_ms: Int64, shown: Candidates) -> Float32:
        """Return the probabilities float32 [K, O] of items if shown to people at their times."""
        return self._chances(self._shown(histories, at_ms, shown))

    @torch.inference_mode()
    def click_shuffled(
        self, histories: Sequence[History], at_ms: Int64, shown: Candidates, order: Int64
    ) -> dict[str, Float32]:
        """Return the same [K, O] by each name of the head's numbers (`click_numbers`).

        Of these item k has what item order[k] has (int64 [K], a permutation), all else is its own.
        """
        features, place = self._shown(histories, at_ms, shown), torch.from_numpy(order)
        names = self._model.config.click_numbers
        return {name: self._chances(features.shuffled(name, place)) for name in names}

    def _shown(
        self, histories: Sequence[History], at_ms: Int64, shown: Candidates
    ) -> ShownFeatures:
        view, rows, items = self._view(histories, at_ms, shown.item)
        return shown_features(self._model.config, items, view, shown.among(rows))

    def _chances(self, shown: ShownFeatures) -> Float32:
        """Return probabilities [K, O]."""
        logits = self._model.calibration(self._model.click(shown))
        probabilities: Float32 = torch.sigmoid(logits).numpy()
        return probabilities

    def _view(
        self, histories: Sequence[History], at_ms: Int64, also: Int64
    ) -> tuple[View, Tensor, ItemSlice]:
        """Run the trunk; return what it sees, the rows that its places mean, and their slice."""
        length = np.array([len(h.item) for h in histories])
        shape = (len(histories), max(1, int(length.max(initial=0))))
        item, kind, ts = (np.zeros(shape, np.int64) for _ in range(3))
        for row, history in enumerate(histories):
            place = (row, slice(0, len(history.item)))
            item[place], kind[place], ts[place] = history.item, history.type, history.ts
        rows = np.unique(np.concatenate([item.ravel(), also]))
        queries = Queries(
            token=torch.from_numpy(np.searchsorted(rows, item)),
            type=torch.from_numpy(kind),
            ts=torch.from_numpy(ts),
            row=torch.arange(len(histories)),
            context=torch.from_numpy(length),
            at_ms=torch.from_numpy(np.asarray(at_ms, np.int64)),
            moment=torch.zeros(len(histories), dtype=torch.int64),
        )
        index = torch.from_numpy(rows)
        items = self._items.slice(index)
        return self._model.view(items, queries), index, items

    def _rates(self, candidates: Int64) -> Float32:
        """Return what is known of the responses to items, [K, F]; nothing where nobody asks."""
        if self._model.config.click_inputs == "vectors":
            return np.zeros((len(candidates), 0), np.float32)
        return self._items.rates[candidates]

    @torch.inference_mode()
    def similarity(self, row: int) -> Float32:
        """Return the cosine of every item's vector with one item's, float32 [N]."""
        vector = self._items.vector
        dot = vector @ functional.normalize(vector[row], dim=0)
        cosine: Float32 = (dot / torch.linalg.vector_norm(vector, dim=1).clamp(min=1e-12)).numpy()
        return cosine


def known_popularity(popularity: Float32, num_items: int) -> Tensor:
    """Return popularity [num_items, P]: cut to the rows asked for, and zero beyond its own."""
    missing = num_items - len(popularity)
    if missing > 0:
        popularity = np.pad(popularity, ((0, missing), (0, 0)))
    return torch.from_numpy(popularity[:num_items])


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
