"""Trials on Ray Tune: drawn at random or by Optuna, run side by side, stopped early by ASHA."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ray_rec.errors import ConfigError
from ray_rec.search.objective import CUTOFF, Objective
from ray_rec.search.space import Dimension, Params

METRIC = f"ndcg@{CUTOFF}"
"""What trials are compared by; the higher the better."""

_NAME = "trials"
"""Tune's folder in the search's own."""


@dataclass(frozen=True)
class SearchOptions:
    """How the space is searched.

    `trials` are drawn in all, `concurrent` at once at most (0: as many as CPUs allow, at
    `cpus_per_trial` each); `seed` is of what is drawn; `resume` goes on with what the folder holds.
    """

    trials: int = 20
    search: Literal["random", "optuna"] = "optuna"
    scheduler: Literal["asha", "none"] = "asha"
    cpus_per_trial: float = 1.0
    concurrent: int = 0
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the option."""
        if self.trials < 1 or self.concurrent < 0 or self.cpus_per_trial <= 0:
            raise ConfigError(
                f"trials is {self.trials}, concurrent {self.concurrent}, cpus_per_trial "
                f"{self.cpus_per_trial}; they must be at least 1, at least 0, and above 0"
            )


@dataclass(frozen=True)
class Trial:
    """One configuration and what it came to; `curve` has the metrics after each pass.

    `error` is empty but where it failed; a trial with fewer passes than others was stopped early.
    """

    number: int
    params: Params
    curve: list[dict[str, float]]
    seconds: float
    error: str = ""

    @property
    def value(self) -> float:
        """The metric after its last pass; minus infinity where there is none."""
        value = self.curve[-1][METRIC] if self.curve and not self.error else math.nan
        return value if math.isfinite(value) else -math.inf


def run_trials(
    objective: Objective, space: list[Dimension], options: SearchOptions, folder: Path
) -> list[Trial]:
    """Run all trials and return them, the best first; what fails is among the last.

    Args:
        objective: what a trial is worth.
        space: what varies.
        options: how it is searched.
        folder: on a file system that all of the cluster's nodes see; a search that was cut off is
            resumed from it, its unfinished trials from their beginning.

    Raises:
        ConfigError: Ray Tune or Optuna is not installed, or there is nothing to resume.
    """
    tuner = _tuner(objective, space, options, folder.resolve())
    found = [_finished(result) for result in tuner.fit()]
    return sorted(found, key=lambda trial: (-trial.value, trial.number))


def _tuner(
    objective: Objective, space: list[Dimension], options: SearchOptions, folder: Path
) -> Any:
    tune = _tune()
    trainable = tune.with_resources(
        tune.with_parameters(_trial, objective=objective), {"cpu": options.cpus_per_trial}
    )
    if options.resume:
        place = str(folder / _NAME)
        if not tune.Tuner.can_restore(place):
            raise ConfigError(f"there is no search to resume in {folder}; leave --resume out")
        return tune.Tuner.restore(place, trainable, resume_unfinished=True)
    return tune.Tuner(
        trainable,
        param_space=_drawn(tune, space),
        tune_config=_config(tune, options, objective.options.passes),
        run_config=tune.RunConfig(name=_NAME, storage_path=str(folder), verbose=1),
    )


def _trial(params: dict[str, Any], objective: Objective) -> None:
    objective.judge(params, _tune().report)


def _tune() -> Any:
    try:
        from ray import tune
    except ImportError as error:
        raise ConfigError('a search needs: pip install "ray-rec[tune]"') from error
    return tune


def _drawn(tune: Any, space: list[Dimension]) -> dict[str, Any]:
    makers = {
        "uniform": tune.uniform,
        "loguniform": tune.loguniform,
        "int": lambda low, high: tune.randint(low, high + 1),
        "choice": lambda *values: tune.choice(values),
    }
    return {d.key: makers[d.kind](*d.values) for d in space}


def _config(tune: Any, options: SearchOptions, passes: int) -> Any:
    """Return how Tune is to go about it; ASHA stops two in three trials after 1, 3, 9, … passes."""
    from ray.tune.schedulers import ASHAScheduler

    asha = options.scheduler == "asha" and passes > 1
    scheduler = partial(ASHAScheduler, max_t=passes, grace_period=1, reduction_factor=3)
    return tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=options.trials,
        search_alg=_searcher(options),
        scheduler=scheduler() if asha else None,
        max_concurrent_trials=options.concurrent or None,
        reuse_actors=True,  # a process takes seconds to start
        trial_dirname_creator=_folder,
    )


def _searcher(options: SearchOptions) -> Any:
    if options.search == "random":
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator(random_state=options.seed, max_concurrent=options.concurrent)
    from ray.tune.search.optuna import OptunaSearch

    try:
        return OptunaSearch(metric=METRIC, mode="max", seed=options.seed)
    except (ImportError, AssertionError) as error:
        raise ConfigError('--search optuna needs: pip install "ray-rec[tune]"') from error


def _folder(trial: Any) -> str:
    """Return a trial's number, from 1: the order of results changes when a search is resumed."""
    return str(trial.experiment_tag).partition("_")[0]


def _finished(result: Any) -> Trial:
    history = result.metrics_dataframe
    names = [] if history is None else [n for n in history.columns if n.endswith(f"@{CUTOFF}")]
    curve = [] if history is None else history[names].to_dict("records")
    error = "" if result.error is None else str(result.error).strip().splitlines()[-1]
    seconds = float((result.metrics or {}).get("time_total_s", 0.0))
    number = int(Path(result.path).name)
    return Trial(number, result.config or {}, curve, round(seconds, 2), error)
