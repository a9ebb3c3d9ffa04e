"""The models that an evaluation knows by name, each made anew for each seed."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError, meant
from ray_rec.evaluation.rankers.baselines import (
    ItemKnn,
    OwnFrequency,
    Popularity,
    Random,
    Ranker,
    RecencyPopularity,
)
from ray_rec.evaluation.rankers.baskets import DecayedFrequency, TifuKnn
from ray_rec.evaluation.rankers.ensemble import NUM_MEMBERS, Ensemble
from ray_rec.evaluation.rankers.hybrid import Frozen, Hybrid
from ray_rec.evaluation.rankers.live import Company, LivePopularity
from ray_rec.evaluation.rankers.neighbours import TextKnn, UserKnn
from ray_rec.evaluation.rankers.sasrec import Average, SasRec
from ray_rec.model.combining import Combine
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore, Vectors


class Makings:
    """What models are made of; texts are encoded when the first model asks for them.

    Args:
        config: of the run; vectors are kept under its `state_dir`.
        items: the catalogue, WINDOW_ITEMS_SCHEMA.
        passes: how often the hybrid goes through what it learns.
        ordered: whether a user's things of one time were done in the order that they are in.
        promoted: how far each item was promoted and since when, PROMOTED_SCHEMA.
    """

    def __init__(
        self,
        config: RunConfig,
        items: pa.Table,
        passes: int,
        ordered: bool = False,
        promoted: pa.Table | None = None,
    ) -> None:
        self.config, self.items, self.passes, self.ordered = config, items, passes, ordered
        self.promoted = promoted

    @property
    def seed(self) -> int:
        """Seed of all that is drawn."""
        return self.config.learner.seed

    @cached_property
    def raw(self) -> Vectors:
        """Vector of each item's text, float32 [N, raw_dim]; zeros where there is none."""
        encoder = TextEncoder(self.config.encoder)
        store = TextStore(f"{self.config.state_dir}/texts", encoder.digest)
        texts = [str(text) for text in self.items["text"].to_pylist()]
        out = store.vectors(texts, encoder.encode)
        out[np.array([not text for text in texts])] = 0.0
        return out

    def hybrids(self, name: str, combine: Combine) -> Ensemble:
        """Return an ensemble of the system's own model; no two of another seed share a member."""
        return Ensemble(name, self._hybrid, combine)

    def _hybrid(self, number: int) -> Hybrid:
        learner = replace(self.config.learner, seed=self.seed * NUM_MEMBERS + number)
        config = replace(self.config, learner=learner)
        return self._made(config)

    @cached_property
    def hybrid(self) -> Hybrid:
        """The system's own: one model, with live counts and with frozen ones."""
        return self._made(self.config)

    def _made(self, config: RunConfig) -> Hybrid:
        encoder = TextEncoder(config.encoder) if config.encoder.learns else None
        how = (self.passes, self.ordered, encoder)
        return Hybrid(config, self.items, self.raw, *how, promoted=self.promoted)

    @cached_property
    def sasrec(self) -> SasRec:
        """Items by id: one model, alone and in the average."""
        return SasRec(seed=self.seed)

    @cached_property
    def sasrec_text(self) -> SasRec:
        """Items by text: one model, alone and in the average."""
        return SasRec(raw=self.raw, seed=self.seed)


MODELS: dict[str, Callable[[Makings], Ranker]] = {
    "hybrid": lambda m: m.hybrid,
    "hybrid-frozen": lambda m: Frozen(m.hybrid),
    "hybrid-average": lambda m: m.hybrids("hybrid-average", "score-average"),
    "hybrid-vote": lambda m: m.hybrids("hybrid-vote", "rank-vote"),
    "hybrid-stacked": lambda m: m.hybrids("hybrid-stacked", "stacking"),
    "random": lambda _: Random(),
    "popularity": lambda _: Popularity(),
    "recency-popularity": lambda _: RecencyPopularity(),
    "live-popularity": lambda _: LivePopularity(),
    "company": lambda m: Company(m.config.features),
    "own-frequency": lambda _: OwnFrequency(),
    "decayed-frequency": lambda _: DecayedFrequency(),
    "item-knn": lambda _: ItemKnn(),
    "user-knn": lambda _: UserKnn(),
    "tifu-knn": lambda _: TifuKnn(),
    "text-knn": lambda m: TextKnn(m.raw, m.config.model.text_dim),
    "sasrec": lambda m: m.sasrec,
    "sasrec-text": lambda m: m.sasrec_text,
    "two-model-average": lambda m: Average(m.sasrec, m.sasrec_text),
}
"""In the order of a report, the system's own first."""

DRAWN = (
    "hybrid",
    "hybrid-frozen",
    "hybrid-average",
    "hybrid-vote",
    "hybrid-stacked",
    "sasrec",
    "sasrec-text",
    "two-model-average",
)
"""What is another model with another seed."""

QUICK = ("popularity", "recency-popularity", "live-popularity", "item-knn", "user-knn")
"""What takes seconds and no texts."""

STREAMING = ("random", *QUICK, "own-frequency")
"""What learns window by window at little cost, while the catalogue grows."""


def check_names(names: Sequence[str], known: Collection[str] = MODELS) -> None:
    """Raise ConfigError for a model that is not known, or named twice."""
    for name in names:
        if name not in known:
            hint = meant(name, known)
            raise ConfigError(f"no model {name!r} here; known are {', '.join(known)}{hint}")
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"models are {list(names)}; name one or more, each once")


def make(names: Sequence[str], makings: Makings) -> list[Ranker]:
    """Return new models, in the order of `names`."""
    return [MODELS[name](makings) for name in names]
