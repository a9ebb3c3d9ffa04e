"""Models side by side on a log, by one of several protocols; the same function for all commands."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.logged import Logged, read_log
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.backtest import backtest
from ray_rec.evaluation.clicks.importance import Said
from ray_rec.evaluation.clicks.offline import judge_clicks, over_seeds
from ray_rec.evaluation.clicks.policies import PolicyOptions, value_policies
from ray_rec.evaluation.clicks.shown import Shown, read_shown
from ray_rec.evaluation.clicks.streamed import CLICK_HEAD, HEADS_AVERAGE, averaged, streamed
from ray_rec.evaluation.metrics.catalogue import word_vectors
from ray_rec.evaluation.offline import Progress
from ray_rec.evaluation.options import OWN_CLICKS, EvaluateOptions
from ray_rec.evaluation.prequential import MODEL, Clock, Options
from ray_rec.evaluation.rankers.models import Makings, make
from ray_rec.evaluation.reports.provenance import commit, machine
from ray_rec.evaluation.reports.trials import described, listed
from ray_rec.evaluation.trials import ALL, NEW, Trials, divide, put
from ray_rec.features.examples import WINDOW_ITEMS_SCHEMA
from ray_rec.log.base import open_log


def evaluate(
    config: RunConfig, options: EvaluateOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Read the log, split it, fit and rank; return the report as JSON types.

    The protocol `prequential` is a backtest beside the models named, `off-policy` the value of
    policies: see there.

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
    if options.is_off_policy:
        with clock.stage("policies"):
            found = _policies(logged, config, options)
    else:
        found = _compared(logged, config, options, clock, progress)
    return found | {
        "options": asdict(options),
        "config": config.to_dict(),
        "seed": config.learner.seed,
        "seeds": list(options.seeds or (config.learner.seed,)),
        "data": logged.data,
        "commit": commit(),
        "machine": machine(),
        "duration_s": round(time.perf_counter() - began, 2),
        "stages_s": {name: round(spent, 2) for name, spent in clock.spent.items()},
    }


def _compared(
    logged: Logged,
    config: RunConfig,
    options: EvaluateOptions,
    clock: Clock,
    progress: Progress | None,
) -> dict[str, Any]:
    split = divide(logged.events, options)
    with clock.stage("fit and rank"):
        trials = put(split, config, logged, options, progress)
    with clock.stage("summary"):
        found = _described(split, trials, logged, options, config.learner.seed)
    with clock.stage("clicks"):
        found["clicks"] = _clicks(logged, config, options)
    return found


def _policies(logged: Logged, config: RunConfig, options: EvaluateOptions) -> dict[str, Any]:
    shown = read_shown(logged.tables, logged.window, config)
    how = PolicyOptions(
        options.models, options.select, options.clip, options.max_queries, config.learner.seed
    )
    found = value_policies(shown, config.features.outcome_types, options.time, how)
    return {"protocol": options.protocol, "policies": found}


def _replayed(
    config: RunConfig, options: EvaluateOptions, progress: Progress | None
) -> dict[str, Any]:
    def tell(done: int, total: int, _losses: dict[str, float]) -> None:
        if progress is not None:
            progress("records", done, total)

    plain = Options(
        options.start,
        options.end,
        max_queries=options.max_queries,
        cutoff=options.cutoff,
        twins=options.twins,
    )
    names = [name for name in options.rankers if name != MODEL]
    rankers = make(names, Makings(config, WINDOW_ITEMS_SCHEMA.empty_table(), options.passes))
    return backtest(config, plain, tell, rankers) | {"protocol": options.protocol}


def _clicks(logged: Logged, config: RunConfig, options: EvaluateOptions) -> dict[str, Any]:
    """Judge click models under each seed; see `over_seeds`."""
    if not options.click_models:
        return {}
    shown = read_shown(logged.tables, logged.window, config)
    seeds = options.seeds or (config.learner.seed,)
    said = _said(shown, config, options, seeds)
    others = [name for name in options.click_models if name not in said]
    told = (options.select, options.importance)
    found = [
        judge_clicks(
            shown,
            config.features.outcome_types,
            others,
            options.time,
            seed,
            *told,
            {name: by_seed[place] for name, by_seed in said.items()},
        )
        for place, seed in enumerate(seeds)
    ]
    return over_seeds(found)


def _said(
    shown: Shown, config: RunConfig, options: EvaluateOptions, seeds: Sequence[int]
) -> dict[str, list[Said]]:
    """Return what the system's own click head says under each seed, and the mean of that."""
    named = [name for name in OWN_CLICKS if name in options.click_models]
    if not named:
        return {}
    begin_ms = options.time.begin_ms(shown.ts)
    how = (options.passes, options.start, options.end, options.importance, seeds)
    with open_log(config.log) as log:
        heads = streamed(log, config, shown, begin_ms, *how)
    every = {HEADS_AVERAGE: [averaged(heads)] * len(heads), CLICK_HEAD: heads}
    return {name: every[name] for name in named}


def _described(
    split: Split,
    trials: Trials,
    logged: Logged,
    options: EvaluateOptions,
    seed: int,
) -> dict[str, Any]:
    events = split.events
    counts = np.bincount(events.item[split.train], minlength=len(events.item_ids))
    words = word_vectors([str(text) for text in logged.items["text"].to_pylist()])

    def view(name: str) -> dict[str, Any]:
        answered = trials.views[name]
        asked = answered[0]
        return {
            "model": MODEL,
            "cutoff": options.cutoff,
            "queries": len(asked.user),
            "users": len(set(asked.user.tolist())),
            "targets": len(asked.target_query),
            **described(answered, options.against, options.cutoff, seed),
        }

    return {
        "protocol": options.protocol,
        "items": len(events.item_ids),
        "learned": int(split.train.sum()),
        **view(ALL),
        "lists": listed(trials.views[ALL], counts, words),
        "learning": trials.learning,
        **({NEW: view(NEW)} if NEW in trials.views else {}),
    }
