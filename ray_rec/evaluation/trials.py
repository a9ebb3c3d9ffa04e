"""One protocol's questions put to all models, those that draw at random once for each seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.baskets import next_basket
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.logged import Logged
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.asking.splits import global_time, item_holdout, leave_one_out
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.offline import Progress, View, judge_views
from ray_rec.evaluation.options import EvaluateOptions
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.rankers.hybrid import Hybrid
from ray_rec.evaluation.rankers.models import DRAWN, Makings, make

ALL, NEW = "all", "new_to_user"
"""Views of the same answers: every target, and those that their user had never taken."""


@dataclass(frozen=True)
class Trials:
    """What all models answered, by view and seed, and how those that tell it learned.

    `learning` has by model the unit that it learns at a time and, for each seed, the mean loss of
    each: `{"unit": "pass", "losses": [[…], …]}`.
    """

    views: dict[str, list[Ranked]]
    learning: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, views: Sequence[Ranked], rankers: Sequence[Ranker]) -> None:
        """Take what another seed gave."""
        for trials, answers in zip(self.views.values(), views, strict=True):
            trials.append(trials[0].with_answers(answers) if trials else answers)
        for ranker in rankers:
            if isinstance(ranker, Hybrid):
                told = self.learning.setdefault(ranker.name, {"unit": ranker.unit, "losses": []})
                told["losses"].append(ranker.losses)


def divide(events: Events, options: EvaluateOptions) -> Split:
    """Return the questions that the options ask for.

    Raises:
        DataError: there is nothing to learn from, or to ask.
    """
    if options.protocol == "leave-one-out":
        split = leave_one_out(events)
    elif options.protocol == "item-holdout":
        split = item_holdout(events, options.held_items, options.time)
    elif options.protocol == "next-basket":
        split = next_basket(events, options.time)
    else:
        split = global_time(events, options.time)
    return (split if options.may_repeat else split.without_repeats()).sampled(options.max_queries)


def put(
    split: Split,
    config: RunConfig,
    logged: Logged,
    options: EvaluateOptions,
    progress: Progress | None = None,
) -> Trials:
    """Return for each view what all models answer under each seed.

    Args:
        split: what is learned and asked.
        config: of the run; its seed is taken where the options name none.
        logged: where the catalogue and its promotions are from.
        options: names of models and seeds.
        progress: told how far each model is.
    """
    views = _views(split, options)
    out = Trials({name: [] for name in views})
    for number, seed in enumerate(options.seeds or (config.learner.seed,)):
        own = replace(config, learner=replace(config.learner, seed=seed))
        names = [name for name in options.rankers if not number or name in DRAWN]
        how = (options.passes, options.is_ordered, logged.promoted)
        rankers = make(names, Makings(own, logged.items, *how))
        found = judge_views(split, rankers, [*views.values()], progress, options.cutoff)
        out.add(found, rankers)
    return out


def _views(split: Split, options: EvaluateOptions) -> dict[str, View]:
    views = {ALL: View(np.ones(len(split.target), np.bool_), options.may_repeat)}
    if options.protocol == "next-basket" and not (again := split.repeated()).all():
        views[NEW] = View(~again, repeats=False)
    return views
