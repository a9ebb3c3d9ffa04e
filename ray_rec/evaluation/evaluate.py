"""Models side by side on a log, by one of several protocols; the same function for all commands."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.logged import Logged, read_log
from ray_rec.evaluation.asking.splits import (
    HELD_ITEMS,
    Split,
    TimeOptions,
    global_time,
    item_holdout,
    leave_one_out,
)
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.backtest import backtest
from ray_rec.evaluation.clicks.models import CLICK_MODELS
from ray_rec.evaluation.clicks.offline import judge_clicks
from ray_rec.evaluation.clicks.shown import read_shown
from ray_rec.evaluation.metrics.catalogue import word_vectors
from ray_rec.evaluation.offline import Progress, judge
from ray_rec.evaluation.prequential import MODEL, Clock, Options
from ray_rec.evaluation.rankers.models import (
    DRAWN,
    MODELS,
    QUICK,
    STREAMING,
    Makings,
    check_names,
    make,
)
from ray_rec.evaluation.reports.provenance import commit, machine
from ray_rec.evaluation.reports.summary import BASELINE
from ray_rec.evaluation.reports.trials import described, listed
from ray_rec.features.examples import WINDOW_ITEMS_SCHEMA
from ray_rec.log.base import open_log

Protocol = Literal["prequential", "global-time", "leave-one-out", "item-holdout"]


@dataclass(frozen=True)
class EvaluateOptions:
    """What is compared, and how.

    `repeats` lets items be recommended again to who took them; `passes` is how often the hybrid
    learns its windows; `held_items` is the share that an item hold-out takes away; `max_queries`
    bounds the questions (0: all), chosen by a stable hash; `start` and `end` are places on the log
    (see `stretch`). Popularity is always among the models: the others are set beside it. Click
    models, of `CLICK_MODELS`, go with `global-time` alone, and need exposures on the log.

    `seeds` are what the models that draw at random are fitted with, each anew (none: the seed of
    the run's configuration); a replay takes one. `references` are models that the others are set
    against beside popularity.
    """

    protocol: Protocol = "global-time"
    models: tuple[str, ...] = QUICK
    seeds: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    repeats: bool = False
    passes: int = 1
    held_items: float = HELD_ITEMS
    max_queries: int = 0
    cutoff: int = 10
    start: str | None = None
    end: str | None = None
    time: TimeOptions = field(default_factory=TimeOptions)

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the option."""
        if self.protocol not in get_args(Protocol):
            known = ", ".join(get_args(Protocol))
            raise ConfigError(f"no protocol {self.protocol!r}; known are {known}")
        check_names(self.models, self._known())
        for name, least in (("passes", 1), ("cutoff", 1), ("max_queries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if len(set(self.seeds)) < len(self.seeds) or (self.is_prequential and self.seeds):
            raise ConfigError(
                f"seeds are {list(self.seeds)}; name each once, and none for a replay "
                "(learner.seed is its own)"
            )
        if self.references:
            check_names(self.references, self.rankers)

    def _known(self) -> tuple[str, ...]:
        if self.is_prequential:
            return MODEL, *STREAMING
        return (*MODELS, *CLICK_MODELS) if self.protocol == "global-time" else (*MODELS,)

    @property
    def is_prequential(self) -> bool:
        """Whether the log is replayed, each window tested before it is learned."""
        return self.protocol == "prequential"

    @property
    def rankers(self) -> tuple[str, ...]:
        """The models that rank items, popularity among them."""
        named = tuple(name for name in self.models if name not in CLICK_MODELS)
        return named if BASELINE in named else (*named, BASELINE)

    @property
    def against(self) -> tuple[str, ...]:
        """The models that the others are set against, popularity first."""
        return tuple(dict.fromkeys((BASELINE, *self.references)))

    @property
    def click_models(self) -> tuple[str, ...]:
        """The models of whether what is shown is taken."""
        return tuple(name for name in self.models if name in CLICK_MODELS)


def seeds_of(text: str | None) -> tuple[int, ...]:
    """Read seeds as a command line gives them.

    >>> seeds_of("0,1,2")
    (0, 1, 2)

    Raises:
        ConfigError: they are no numbers.
    """
    try:
        return tuple(int(seed) for seed in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(f"seeds are {text!r}; write whole numbers, as in 0,1,2") from error


def evaluate(
    config: RunConfig, options: EvaluateOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Read the log, split it, fit and rank; return the report as JSON types.

    The protocol `prequential` is a backtest beside the models named: see there.

    Raises:
        LogError: the log does not answer, or lacks topics.
        ConfigError: an option or place on the log is wrong.
        DataError: the split leaves nothing to learn from or to ask.
    """
    if options.is_prequential:
        return _replayed(config, options, progress)
    began, clock = time.perf_counter(), Clock()
    torch.set_num_threads(config.training.torch_threads)
    with clock.stage("read"), open_log(config.log) as log:
        logged = read_log(log, config, options.start, options.end)
    split = divide(logged.events, options)
    with clock.stage("fit and rank"):
        trials = _trials(split, config, logged, options, progress)
    with clock.stage("summary"):
        found = _described(split, trials, logged, options, config.learner.seed)
    with clock.stage("clicks"):
        found["clicks"] = _clicks(logged, config, options)
    return found | {
        "options": asdict(options),
        "config": config.to_dict(),
        "seed": config.learner.seed,
        "seeds": list(_seeds(config, options)),
        "data": logged.data,
        "commit": commit(),
        "machine": machine(),
        "duration_s": round(time.perf_counter() - began, 2),
        "stages_s": {name: round(spent, 2) for name, spent in clock.spent.items()},
    }


def _replayed(
    config: RunConfig, options: EvaluateOptions, progress: Progress | None
) -> dict[str, Any]:
    def tell(done: int, total: int, _losses: dict[str, float]) -> None:
        if progress is not None:
            progress("records", done, total)

    plain = Options(
        options.start, options.end, max_queries=options.max_queries, cutoff=options.cutoff
    )
    names = [name for name in options.rankers if name != MODEL]
    rankers = make(names, Makings(config, WINDOW_ITEMS_SCHEMA.empty_table(), options.passes))
    return backtest(config, plain, tell, rankers) | {"protocol": options.protocol}


def divide(events: Events, options: EvaluateOptions) -> Split:
    """Return the split that the options ask for."""
    if options.protocol == "leave-one-out":
        return leave_one_out(events)
    if options.protocol == "item-holdout":
        return item_holdout(events, options.held_items, options.time)
    return global_time(events, options.time)


def _clicks(logged: Logged, config: RunConfig, options: EvaluateOptions) -> dict[str, Any]:
    if not options.click_models:
        return {}
    shown = read_shown(logged.tables, logged.window, config)
    outcomes, quantile = config.features.outcome_types, options.time.quantile
    return judge_clicks(shown, outcomes, options.click_models, quantile, config.learner.seed)


def _seeds(config: RunConfig, options: EvaluateOptions) -> tuple[int, ...]:
    return options.seeds or (config.learner.seed,)


def _trials(
    split: Split,
    config: RunConfig,
    logged: Logged,
    options: EvaluateOptions,
    progress: Progress | None,
) -> list[Ranked]:
    """Return what all models answer under each seed; those that draw nothing are asked once."""
    out: list[Ranked] = []
    for seed in _seeds(config, options):
        own = replace(config, learner=replace(config.learner, seed=seed))
        names = [name for name in options.rankers if not out or name in DRAWN]
        rankers = make(names, Makings(own, logged.items, options.passes))
        repeats, most = options.repeats, options.max_queries
        found = judge(split, rankers, repeats, most, progress, options.cutoff)
        out.append(out[0].with_answers(found) if out else found)
    return out


def _described(
    split: Split, trials: list[Ranked], logged: Logged, options: EvaluateOptions, seed: int
) -> dict[str, Any]:
    asked, events = trials[0], split.events
    counts = np.bincount(events.item[split.train], minlength=len(events.item_ids))
    words = word_vectors([str(text) for text in logged.items["text"].to_pylist()])
    return {
        "protocol": options.protocol,
        "model": MODEL,
        "cutoff": options.cutoff,
        "queries": len(asked.user),
        "users": len(set(asked.user.tolist())),
        "items": len(events.item_ids),
        "learned": int(split.train.sum()),
        **described(trials, options.against, options.cutoff, seed),
        "lists": listed(trials, counts, words),
    }
