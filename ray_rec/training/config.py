"""What a run of the trainer may be told: size of a window, workers, when to keep and publish."""

from dataclasses import dataclass, field
from typing import Literal

from ray_rec.errors import ConfigError
from ray_rec.features.sequence_augment import SequenceAugment
from ray_rec.features.text_augment import TextAugment

_NOT_NEGATIVE = (
    "idle_after_s",
    "patience",
    "gate_margin",
    "checkpoint_interval_s",
    "publish_interval_s",
    "max_failures",
    "window_interval_ms",
    "keep_plans",
    "replay_windows",
    "replay_horizon",
    "replay_ratio",
)

_AT_LEAST_ONE = (
    "window_records",
    "window_bytes",
    "poll_ms",
    "num_workers",
    "passes",
    "state_owners",
    "torch_threads",
    "gate_queries",
    "full_every",
)


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the streaming trainer; durations in seconds unless the name says otherwise."""

    window_records: int = 20_000
    """Records of all topics together that one window takes, about, at most."""
    max_window_records: int = 0
    """The same while a stream that follows the log catches up; 0 takes four times as many."""
    window_bytes: int = 256 << 20
    """Memory that the decoded records of one window may take."""
    window_interval_ms: int = 0
    """How long less than a whole window waits for more, from the first record on."""
    on_gap: Literal["fail", "skip"] = "fail"
    """Whether records that retention deleted before they were learned end a run or are counted."""
    keep_plans: int = 0
    """Plans that are kept, at least, and those that a checkpoint needs; 0 keeps all."""
    poll_ms: int = 20
    """How long the planner waits before it looks for new records again."""
    idle_after_s: float = 5.0
    """Partitions without a new record for so long do not hold the watermark back."""
    passes: int = 1
    """How often a bounded run learns what is new on the log; above 1 in shuffled steps, with rates
    that come down to 0 at the end."""
    num_workers: int = 1
    state_owners: int = 1
    """Processes that users are shared out among; with 1 the state's owner holds them itself."""
    use_gpu: bool = False
    cpus_per_worker: float = 0.5
    cpus_per_read: float = 0.25
    torch_threads: int = 1
    checkpoint_interval_s: float = 30.0
    publish: Literal["interval", "end"] = "interval"
    """Whether versions are made as the run goes, or one when it ends."""
    publish_interval_s: float = 1.0
    full_every: int = 20
    """Of so many published versions one is full; the others hold what changed."""
    gate_queries: int = 64
    """Held-out queries, the newest, that compare a candidate with the version in service."""
    gate_margin: float = 0.05
    """Share by which the candidate's loss may exceed that of the version in service."""
    patience: int = 0
    """A bounded run ends when the gate refused so many versions in a row; 0 learns all there is.
    Several passes end when so many in a row were no better on held-out people, and the best one is
    published; to tell them apart takes more `gate_queries` than a gate needs."""
    keep_versions: int = 10
    keep_checkpoints: int = 2
    max_failures: int = 10
    """Worker group failures without a window learned in between before the run gives up."""
    replay_windows: int = 0
    """Older windows that a plan names to be learned again beside the new one."""
    replay_horizon: int = 100
    """How far back replayed windows lie at most."""
    replay_ratio: float = 0.5
    """Rows of the replayed windows that a plan names, for each new row, at most."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where metrics go beside `last.json`; what is written to files lies under a local
    `state_dir`."""
    experiment: str = "ray-rec"
    """Project of Weights & Biases and experiment of MLflow that a run is filed under."""
    mlflow_uri: str = ""
    """MLflow's server, as `http://host:5000`; empty takes a database of one file."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Port of the driver that Prometheus scrapes; 0 for none."""

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the key."""
        for key in _AT_LEAST_ONE:
            if getattr(self, key) < 1:
                raise ConfigError(f"training.{key} is {getattr(self, key)}; it must be at least 1")
        if self.max_window_records and self.max_window_records < self.window_records:
            raise ConfigError(
                f"training.max_window_records is {self.max_window_records}; it must be at least "
                f"training.window_records ({self.window_records}), or 0"
            )
        if self.cpus_per_worker <= 0 or self.cpus_per_read <= 0:
            raise ConfigError("training.cpus_per_worker and training.cpus_per_read must be above 0")
        for key in _NOT_NEGATIVE:
            if getattr(self, key) < 0:
                raise ConfigError(f"training.{key} is {getattr(self, key)}; it must be 0 or more")
        if not 0 <= self.metrics_port <= 65535:
            raise ConfigError(f"training.metrics_port is {self.metrics_port}; expected 0 to 65535")
        self._check_kept()

    def _check_kept(self) -> None:
        if 0 < self.keep_plans < self.replay_horizon:
            raise ConfigError(
                f"training.keep_plans is {self.keep_plans}; it must be at least "
                f"training.replay_horizon ({self.replay_horizon}), or 0 to keep all"
            )
        if self.keep_versions < 2 or self.keep_checkpoints < 1:
            raise ConfigError(
                "training.keep_versions must be at least 2 (one to roll back to) "
                "and training.keep_checkpoints at least 1"
            )
        # a verdict on a version is read while others are made
        if self.passes == 1 and self.patience >= self.keep_versions:
            raise ConfigError(
                f"training.patience is {self.patience}; it must be below "
                f"training.keep_versions ({self.keep_versions})"
            )

    def largest_window(self) -> int:
        """Return how many records a window takes at most while a stream catches up."""
        return self.max_window_records or 4 * self.window_records


_LEARNER_NOT_NEGATIVE = (
    "weight_decay",
    "elastic",
    "warmup_steps",
    "total_steps",
    "explode_patience",
    "adversarial_epsilon",
)

_LEAST_TESTED = 16
"""Rows of a small window that are tested whatever `test_share` says."""


@dataclass(frozen=True)
class LearnerConfig:
    """Rates and step size of learning.

    `lr` is the network's rate, `id_lr` the row-wise Adagrad's of item vectors, `encoder_lr` that of
    an encoder that learns.
    """

    optimizer: Literal["adamw", "adam", "sgd", "adafactor"] = "adamw"
    lr: float = 3e-3
    id_lr: float = 0.05
    encoder_lr: float = 1e-5
    encoder_share: float = 0.25
    """Of a step's texts, chosen by their hash, so many go through an encoder that learns; the
    others keep their vectors of the last version."""
    weight_decay: float = 0.01
    elastic: float = 0.0
    """Strength of a penalty on how far network and encoder go from the last published version."""
    average: float = 0.0
    """Decay of the average of the network's weights over steps that is published; 0 for none."""
    clip: float = 5.0
    warmup_steps: int = 50
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the rates of network and encoder after the warm-up."""
    total_steps: int = 0
    """Steps, with the warm-up, after which linear and cosine have come down to 0."""
    rows_per_step: int = 64
    test_rows: int = 128
    """About so many rows at most are predicted before a window is learned, chosen by their hash."""
    test_share: float = 0.05
    """And of a large window no larger share, as ranking the whole catalogue is dear."""
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of a step's forward pass; auto takes bfloat16 where a GPU has it."""
    explode_factor: float = 4.0
    """A step's loss above explode_factor · (1 + the usual one) counts as divergence."""
    explode_patience: int = 100
    """Steps of a task before its losses are compared with the usual one."""
    adversarial_epsilon: float = 0.0
    """How far FGM moves a step's texts, as a share of their length; 0 for no adversarial step."""
    sequences: SequenceAugment = field(default_factory=SequenceAugment)
    """How what users did is told otherwise while it is learned; by default it is not."""
    texts: TextAugment = field(default_factory=TextAugment)
    """Other wordings of the texts that an encoder learns from; by default there are none."""
    retry_scale: float = 0.1
    """Factor on the rates when a diverged window is tried again, before it is set aside."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the key."""
        for key in ("lr", "id_lr", "encoder_lr", "clip", "explode_factor"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"learner.{key} is {getattr(self, key)}; it must be above 0")
        for key in ("test_share", "encoder_share"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(f"learner.{key} is {getattr(self, key)}; it must be within 0..1")
        if not 0 <= self.average < 1:
            raise ConfigError(f"learner.average is {self.average}; it must be from 0 to below 1")
        if not 0 < self.retry_scale < 1:
            raise ConfigError(f"learner.retry_scale is {self.retry_scale}; it must be within 0..1")
        if self.precision == "bfloat16" and self.dtype == "float64":
            raise ConfigError("learner.precision=bfloat16 goes with learner.dtype=float32 only")
        if self.schedule != "constant" and self.total_steps <= self.warmup_steps:
            raise ConfigError(
                f"learner.schedule={self.schedule} needs learner.total_steps above "
                f"learner.warmup_steps ({self.warmup_steps}); it is {self.total_steps}"
            )
        for key in _LEARNER_NOT_NEGATIVE:
            if not getattr(self, key) >= 0:
                raise ConfigError(f"learner.{key} is {getattr(self, key)}; it must be 0 or more")
        for key in ("rows_per_step", "test_rows"):
            if getattr(self, key) < 1:
                raise ConfigError(f"learner.{key} is {getattr(self, key)}; it must be at least 1")

    def tested_share(self, num_rows: int) -> float:
        """Return the share of a window's rows that is tested.

        >>> [LearnerConfig().tested_share(rows) for rows in (10, 640, 1_000, 12_800)]
        [1.0, 0.05, 0.05, 0.01]
        """
        wanted = min(self.test_rows, max(_LEAST_TESTED, self.test_share * num_rows))
        return min(1.0, wanted / max(1, num_rows))
