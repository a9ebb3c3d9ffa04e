"""What a configuration is worth: a model that learned the past, judged on a validation stretch.

The stretch lies before the test period of the time split, which no trial gets to see.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import torch

from ray_rec.config import RunConfig, changed
from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.asking.splits import validation_time
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.rankers.hybrid import Hybrid
from ray_rec.evaluation.rankers.models import MODELS, Makings, check_names
from ray_rec.features.arrays import AnyArray
from ray_rec.log.base import open_log
from ray_rec.search.space import Params, overrides

CUTOFF = 10

Tell = Callable[[dict[str, float]], None]
"""Told the metrics after each pass."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is judged, and on what.

    `test` is the share of the events that comes last and is left alone, `validation` the share
    before it that is asked for; `passes` is how often the model learns what comes before both;
    `repeats` and `max_queries` are as in an evaluation.
    """

    model: str = "hybrid"
    test: float = 0.1
    validation: float = 0.1
    passes: int = 1
    repeats: bool = False
    max_queries: int = 0

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the option."""
        check_names((self.model,))
        for name, least in (("passes", 1), ("max_queries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True)
class Objective:
    """All that trials share: the split, the catalogue, where `params` are put in."""

    config: RunConfig
    options: ObjectiveOptions
    split: Split
    items: pa.Table  # WINDOW_ITEMS_SCHEMA
    promoted: pa.Table  # PROMOTED_SCHEMA
    data: dict[str, Any]  # where the events are from

    @classmethod
    def read(cls, config: RunConfig, options: ObjectiveOptions) -> Self:
        """Read the log, split it, and encode texts once, for all trials to find them.

        Raises:
            LogError: the log does not answer, or lacks topics.
            DataError: the split leaves nothing to learn from or to ask.
        """
        with open_log(config.log) as log:
            logged = read_log(log, config)
        split = validation_time(logged.events, options.test, options.validation)
        if not options.repeats:
            split = split.without_repeats()
        _ = Makings(config, logged.items, options.passes).raw
        asked = split.sampled(options.max_queries)
        return cls(config, options, asked, logged.items, logged.promoted, logged.data)

    def judge(self, params: Params, tell: Tell) -> None:
        """Train and judge one configuration; it is told after each pass, where a model has some.

        Raises:
            ConfigError: the values do not go together.
        """
        config = changed(self.config, overrides(params))
        torch.set_num_threads(config.training.torch_threads)
        makings = Makings(config, self.items, self.options.passes, promoted=self.promoted)
        ranker = MODELS[self.options.model](makings)
        if isinstance(ranker, Hybrid):
            ranker.after_pass = lambda _: tell(self._metrics(ranker))
            ranker.observe(self.split.training())
        else:
            ranker.observe(self.split.training())
            tell(self._metrics(ranker))

    def _metrics(self, ranker: Ranker) -> dict[str, float]:
        judged = judge(self.split, [_Fitted(ranker)], self.options.repeats)
        found = ranking(judged.ranks[ranker.name], judged.target_query, len(judged.user), CUTOFF)
        return {f"hr@{CUTOFF}": float(found.hit.mean()), f"ndcg@{CUTOFF}": float(found.ndcg.mean())}


class _Fitted:
    """A ranker that has learned, or is about to learn more: it is only asked."""

    def __init__(self, ranker: Ranker) -> None:
        self.name, self._ranker = ranker.name, ranker

    def scores(self, queries: Queries) -> AnyArray:
        """Return the ranker's scores."""
        return self._ranker.scores(queries)

    def observe(self, done: Interactions) -> None:
        """Learn nothing."""
