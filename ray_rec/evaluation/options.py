"""What an evaluation may be told: which protocol, which models, under which seeds."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.splits import HELD_ITEMS, TimeOptions
from ray_rec.evaluation.clicks.models import CLICK_MODELS as FITTED
from ray_rec.evaluation.clicks.streamed import CLICK_HEAD, HEADS_AVERAGE
from ray_rec.evaluation.prequential import MODEL
from ray_rec.evaluation.rankers.models import MODELS, QUICK, STREAMING, check_names
from ray_rec.evaluation.reports.summary import BASELINE, PRIOR

OWN_CLICKS = (HEADS_AVERAGE, CLICK_HEAD)
"""The system's own, in the order of a report."""
CLICK_MODELS = (*OWN_CLICKS, *FITTED)

Protocol = Literal[
    "prequential", "global-time", "leave-one-out", "item-holdout", "next-basket", "off-policy"
]


@dataclass(frozen=True)
class EvaluateOptions:
    """What is compared, and how.

    `repeats` lets items be recommended again to who took them; `passes` is how often the hybrid
    learns its windows; `held_items` is the share that an item hold-out takes away; `max_queries`
    bounds the questions (0: all), chosen by a stable hash; `start` and `end` are places on the log
    (see `stretch`); `twins` sets the model's single-task twins beside it in a replay. Popularity is
    always among the models: the others are set beside it. Click models, of `CLICK_MODELS`, go with
    `global-time` alone, and need exposures on the log; but for the system's own click head, whose
    numbers `model.select` names, they learn from the features in `select` (none: all). `importance`
    tells what the first of them has from each; where the click head is named it is the first.

    `seeds` are what the models that draw at random are fitted with, each anew (none: the seed of
    the run's configuration); a replay and `off-policy` take that one, and `click-head-average` is
    the mean of what the click heads of all say. `references` are
    models that the others are set against beside popularity.

    `off-policy` values policies instead: its models are click models, and no weight counts for more
    than `clip` (none: all as they are).
    """

    protocol: Protocol = "global-time"
    models: tuple[str, ...] = QUICK
    seeds: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    repeats: bool = False
    passes: int = 1
    twins: bool = False
    held_items: float = HELD_ITEMS
    max_queries: int = 0
    cutoff: int = 10
    select: tuple[str, ...] = ()
    importance: bool = False
    clip: float | None = None
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
        has_own = self.is_prequential or self.is_off_policy
        if len(set(self.seeds)) < len(self.seeds) or (has_own and self.seeds):
            raise ConfigError(
                f"seeds are {list(self.seeds)}; name each once, and none for a replay "
                "or policies (learner.seed is theirs)"
            )
        if self.twins and not self.is_prequential:
            raise ConfigError(
                f"twins learn in a replay: take protocol prequential, not {self.protocol}"
            )
        if HEADS_AVERAGE in self.models and len(self.seeds) < 2:
            raise ConfigError(f"{HEADS_AVERAGE} is a mean over seeds; name two or more of them")
        own_clicks = set(self.click_models) & {*OWN_CLICKS}
        by_features = set(self.click_models) - {*OWN_CLICKS, PRIOR}
        if self.select and own_clicks and not by_features:
            raise ConfigError(
                f"the click head does not go by select={','.join(self.select)}; give it "
                "--set model.select=[...], or name a model that learns from features as well"
            )
        if self.references:
            check_names(self.references, self.rankers)

    def _known(self) -> tuple[str, ...]:
        if self.is_prequential:
            return MODEL, *STREAMING
        if self.is_off_policy:
            return (*FITTED,)
        return (*MODELS, *CLICK_MODELS) if self.protocol == "global-time" else (*MODELS,)

    @property
    def is_prequential(self) -> bool:
        """Whether the log is replayed, each window tested before it is learned."""
        return self.protocol == "prequential"

    @property
    def is_off_policy(self) -> bool:
        """Whether policies are valued by what was shown, instead of models by what was taken."""
        return self.protocol == "off-policy"

    @property
    def is_ordered(self) -> bool:
        """Whether the order of events of one time is taken for the true one."""
        return self.protocol == "leave-one-out" or self.time.same_time

    @property
    def may_repeat(self) -> bool:
        """Whether what a user took before may be asked for, as baskets always may."""
        return self.repeats or self.protocol == "next-basket"

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


def quick_models(protocol: str) -> tuple[str, ...]:
    """Return the models of a protocol where none are named."""
    return (PRIOR,) if protocol == "off-policy" else QUICK


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
