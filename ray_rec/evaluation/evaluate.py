"""Models side by side on a log, by one of several protocols; the same function for all commands."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

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
from ray_rec.evaluation.offline import Progress, judge
from ray_rec.evaluation.prequential import MODEL, Clock, Options
from ray_rec.evaluation.rankers.models import MODELS, QUICK, STREAMING, Makings, check_names, make
from ray_rec.evaluation.reports.provenance import commit, machine
from ray_rec.evaluation.reports.summary import BASELINE, by_times_seen, compared
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
    models, of `CLICK_MODELS`, go with `global-time` alone, and need exposures on the log; they
    learn from the features in `select` (none: all), and `importance` tells what the first of them
    has from each.
    """

    protocol: Protocol = "global-time"
    models: tuple[str, ...] = QUICK
    repeats: bool = False
    passes: int = 1
    held_items: float = HELD_ITEMS
    max_queries: int = 0
    cutoff: int = 10
    select: tuple[str, ...] = ()
    importance: bool = False
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

    def _known(self) -> tuple[str, ...]:
        if self.is_prequential:
            return MODEL, *STREAMING
        return (*MODELS, *CLICK_MODELS) if self.protocol == "global-time" else (*MODELS,)

    @property
    def is_prequential(self) -> bool:
        """Whether the log is replayed, each window tested before it is learned."""
        return self.protocol == "prequential"

    @property
    def is_ordered(self) -> bool:
        """Whether the order of events of one time is taken for the true one."""
        return self.protocol == "leave-one-out" or self.time.same_time

    @property
    def rankers(self) -> tuple[str, ...]:
        """The models that rank items, popularity among them."""
        named = tuple(name for name in self.models if name not in CLICK_MODELS)
        return named if BASELINE in named else (*named, BASELINE)

    @property
    def click_models(self) -> tuple[str, ...]:
        """The models of whether what is shown is taken."""
        return tuple(name for name in self.models if name in CLICK_MODELS)


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
    rankers = make(
        options.rankers, Makings(config, logged.items, options.passes, options.is_ordered)
    )
    with clock.stage("fit and rank"):
        judged = judge(split, rankers, options.repeats, options.max_queries, progress)
    with clock.stage("summary"):
        found = _described(split, judged, options, config.learner.seed)
    with clock.stage("clicks"):
        found["clicks"] = _clicks(logged, config, options)
    return found | {
        "options": asdict(options),
        "config": config.to_dict(),
        "seed": config.learner.seed,
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
    return judge_clicks(
        shown,
        config.features.outcome_types,
        options.click_models,
        options.time.quantile,
        config.learner.seed,
        options.select,
        options.importance,
    )


def _described(split: Split, judged: Ranked, options: EvaluateOptions, seed: int) -> dict[str, Any]:
    return {
        "protocol": options.protocol,
        "model": MODEL,
        "cutoff": options.cutoff,
        "queries": len(judged.user),
        "users": len(set(judged.user.tolist())),
        "items": len(split.events.item_ids),
        "learned": int(split.train.sum()),
        **compared(judged, options.cutoff, seed),
        "by_times_seen": by_times_seen(judged, options.cutoff, seed),
    }
