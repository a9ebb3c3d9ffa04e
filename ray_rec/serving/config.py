"""How answers are made and how a replica keeps up."""

from dataclasses import dataclass

from ray_rec.errors import ConfigError

POLICIES = ("greedy", "epsilon-greedy")


@dataclass(frozen=True)
class ServingConfig:
    """Ranking, exploration and following.

    `pool`: candidates of the recall head that the click head scores; `click_weight`: weight of
    logit(p_click) beside the recall score; `epsilon`: chance that a slot explores (policy
    epsilon-greedy); `popularity_s`: age at which popularity features are computed anew;
    `poll_s`, `registry_poll_s`: pauses of the log's and the registry's follower;
    `written_wait_s`: the longest that `POST /v1/events` waits for its own events to be applied;
    `exposure_queue`: answers that may wait to be written to the log; `num_threads`: requests that
    one replica computes at the same time.
    """

    pool: int = 200
    click_weight: float = 0.5
    policy: str = "greedy"
    epsilon: float = 0.05
    seed: int = 0
    popularity_s: float = 0.5
    poll_s: float = 0.01
    registry_poll_s: float = 0.5
    written_wait_s: float = 1.0
    exposure_queue: int = 20_000
    num_threads: int = 1

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"serving.policy is {self.policy!r}, expected one of {POLICIES}")
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"serving.epsilon is {self.epsilon}, expected 0 to 1")
        for name in ("pool", "exposure_queue", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"serving.{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("poll_s", "registry_poll_s", "popularity_s", "written_wait_s"):
            if not 0.0 < getattr(self, name) <= 60.0:
                raise ConfigError(
                    f"serving.{name} is {getattr(self, name)}, expected more than 0 and at most 60"
                )
