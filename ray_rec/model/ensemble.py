"""Several versions that answer as one, so that whatever serves a model serves them too.

Members may differ in seed or sizes; they know the same items in the same rows, and read texts
through the same encoder. `joined` makes one set of tensors of theirs, `scorer_of` opens it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec
import numpy as np
import torch
from torch import Tensor

from ray_rec.errors import ConfigError, ModelError
from ray_rec.features.arrays import Float32, Int64
from ray_rec.features.histories import History
from ray_rec.model.combining import Combine, borda, check_combine, together, weighted
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import SERVED_ROWS
from ray_rec.model.servable import ITEMS, Servable, tensors_under

_MEMBER = "member.{}."
_SURE = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""


class Scorer(Protocol):
    """What serving asks of a version; see `Servable` for shapes and units."""

    @property
    def num_items(self) -> int:
        """Items N that this can score."""

    @property
    def raw_dim(self) -> int:
        """Width of the encoder's raw text vectors."""

    def permute(self, rows: Int64, raw: Float32, groups: Int64) -> "Scorer":
        """Return a scorer whose row j is this one's row rows[j], or a cold item."""

    def recall(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        covisits: Float32 | None = None,
        sought: Float32 | None = None,
    ) -> tuple[Float32, dict[str, Float32]]:
        """Return the recall scores of all items, [N], and their parts by name."""

    def recall_batch(
        self,
        histories: Sequence[History],
        at_ms: Int64,
        popularity: Float32,
        covisits: Float32 | None = None,
    ) -> Float32:
        """Return recall scores [Q, N] of several people."""

    def click(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        candidates: Int64,
        placement: Int64 | None = None,
    ) -> Float32:
        """Return the probability of each outcome of each candidate, [K, O]."""

    def similarity(self, row: int) -> Float32:
        """Return the cosine of every item's vector with one item's, [N]."""


@dataclass(frozen=True)
class EnsembleConfig:
    """How the members' answers become one.

    | `combine` | recall score | click probability |
    | --- | --- | --- |
    | `score-average` | the mean | the mean |
    | `rank-vote` | the mean share of the items that it beats (Borda) | the mean |
    | `stacking` | the sum by `recall_weights` | of the sum of logits by `click_weights` |

    A vote is from 0 to 1, which `serving.click_weight` has to go with.
    """

    models: tuple[ModelConfig, ...]
    combine: Combine = "score-average"
    recall_weights: tuple[float, ...] = ()
    click_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Reject what does not fit together."""
        check_combine(self.combine)
        if not self.models:
            raise ConfigError("an ensemble has no members; give one or more")
        wanted = len(self.models) if self.combine == "stacking" else 0
        for key in ("recall_weights", "click_weights"):
            given = getattr(self, key)
            if len(given) != wanted or min(given, default=0.0) < 0:
                raise ConfigError(
                    f"ensemble {key} are {list(given)}; combine={self.combine} takes "
                    f"{wanted} that are not negative"
                )


class Ensemble:
    """Members that answer as one model; immutable, and safe to use from several threads."""

    def __init__(self, members: Sequence[Scorer], config: EnsembleConfig) -> None:
        sizes = {(member.num_items, member.raw_dim) for member in members}
        if len(sizes) != 1 or len(members) != len(config.models):
            raise ModelError(
                f"{len(members)} members with (items, width of texts) {sorted(sizes)} are no "
                f"ensemble of {len(config.models)}; join members of one encoder and catalogue"
            )
        self._members, self._config = tuple(members), config
        even = (1 / len(members),) * len(members)
        self._recall_weights = np.array(config.recall_weights or even, np.float32)
        self._click_weights = np.array(config.click_weights or even, np.float32)

    @property
    def num_items(self) -> int:
        """Items N that all members can score."""
        return self._members[0].num_items

    @property
    def raw_dim(self) -> int:
        """Width of the encoder's raw text vectors."""
        return self._members[0].raw_dim

    def permute(self, rows: Int64, raw: Float32, groups: Int64) -> Self:
        """Return the ensemble of the members in another order of rows."""
        moved = [member.permute(rows, raw, groups) for member in self._members]
        return type(self)(moved, self._config)

    def recall(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        covisits: Float32 | None = None,
        sought: Float32 | None = None,
    ) -> tuple[Float32, dict[str, Float32]]:
        """Return the recall scores of all items and what they are made of, [N] each.

        Parts are the members' own, weighted; of a vote, what each member adds to it.
        """
        said = [m.recall(history, at_ms, popularity, covisits, sought) for m in self._members]
        scores = self._together([score for score, _ in said])
        weights = self._recall_weights
        if self._config.combine == "rank-vote":
            votes = enumerate(borda(score) * weights[0] for score, _ in said)
            return scores, {f"vote.{member}": vote for member, vote in votes}
        return scores, {
            name: weighted([parts[name] for _, parts in said], weights) for name in said[0][1]
        }

    def recall_batch(
        self,
        histories: Sequence[History],
        at_ms: Int64,
        popularity: Float32,
        covisits: Float32 | None = None,
    ) -> Float32:
        """Return recall scores float32 [Q, N] of several people."""
        asked = (histories, at_ms, popularity, covisits)
        return self._together([member.recall_batch(*asked) for member in self._members])

    def _together(self, scores: Sequence[Float32]) -> Float32:
        return together(scores, self._config.combine, self._recall_weights)

    def click(
        self,
        history: History,
        at_ms: int,
        popularity: Float32,
        candidates: Int64,
        placement: Int64 | None = None,
    ) -> Float32:
        """Return the probability of each outcome of each candidate if shown, float32 [K, O]."""
        asked = (history, at_ms, popularity, candidates, placement)
        said = [m.click(*asked) for m in self._members]
        if self._config.combine != "stacking":
            return weighted(said, self._click_weights)
        logits = weighted([logit(p) for p in said], self._click_weights)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def similarity(self, row: int) -> Float32:
        """Return the mean cosine of every item's vector with one item's, float32 [N]."""
        even = np.full(len(self._members), 1 / len(self._members), np.float32)
        return weighted([member.similarity(row) for member in self._members], even)


def logit(chance: Float32) -> Float32:
    """Return the log odds of probabilities, of any shape.

    >>> logit(np.float32([0.5, 0.75])).round(4).tolist()
    [0.0, 1.0986000299453735]
    """
    p = np.clip(chance, _SURE, 1 - _SURE)
    out: Float32 = np.log(p / (1 - p))
    return out


def joined(
    members: Sequence[tuple[Mapping[str, Tensor], Sequence[str]]],
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors and rows (item ids) of a version that holds several.

    Items that a member does not know are left out: to all of them they are new.
    """
    places = [{item_id: row for row, item_id in enumerate(rows)} for _, rows in members]
    kept = [item_id for item_id in members[0][1] if all(item_id in place for place in places)]
    out: dict[str, Tensor] = {}
    for number, (tensors, _) in enumerate(members):
        rows = torch.tensor([places[number][item_id] for item_id in kept], dtype=torch.int64)
        moved = {f"{ITEMS}{name}": tensors[f"{ITEMS}{name}"][rows] for name in SERVED_ROWS}
        prefix = _MEMBER.format(number)
        out |= {f"{prefix}{name}": tensor for name, tensor in {**tensors, **moved}.items()}
    return out, kept


def scorer_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Scorer:
    """Open a version's tensors, one model's or those of an ensemble, by its configuration.

    Raises:
        ModelError: the tensors are not those of this configuration.
    """
    if "ensemble" not in config:
        return Servable.from_tensors(tensors, msgspec.convert(config["model"], ModelConfig))
    ensemble = msgspec.convert(config["ensemble"], EnsembleConfig)
    members = [
        Servable.from_tensors(tensors_under(tensors, _MEMBER.format(number)), model)
        for number, model in enumerate(ensemble.models)
    ]
    return Ensemble(members, ensemble)
