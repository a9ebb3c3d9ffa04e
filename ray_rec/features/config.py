"""What the features are made with: lengths, horizons, event types.

One configuration serves live, offline and backtest; a snapshot remembers the one it was made with.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from ray_rec.errors import ConfigError

MINUTE_MS = 60_000
DAY_MS = 86_400_000
OTHER = "other"
BOUNDS = ("user_ttl_days", "max_state_mb")
"""Keys that say how much is kept, not what it means: a stored state may go on with others."""
GROUPS = ("text", "category", "brand")
"""By what items are alike; the columns of `catalogue.group_keys`."""
TOKEN_TYPES = ("view", "click", "like", "cart", "purchase", "rating")


_SEVERAL = ("half_lives_days", "event_types", "target_types", "outcome_types", "promotions")


@dataclass(frozen=True)
class FeatureConfig:
    """Configuration of `FeatureState`; times are event times.

    `attribution_by_outcome_ms` sets the attribution window of some outcome types apart, as of a
    purchase that takes days where a click takes minutes; `attribution_by_policy_ms` that of all
    outcomes of a policy's exposures, as of a mailing that people answer within a week.
    `event_types` gives each type its code (its place); a type not listed becomes "other".
    `target_types` are learned as recall targets, kept as history tokens and counted as popularity;
    other types (returns, for one) are neither, but may still be outcomes of an exposure.
    `covisits` is how many companions each item remembers, the newest of what else people took; 0
    remembers none.
    `outcome_types` gives each outcome its label bit (its place).
    `promotions` names channels of which items tell how far they are promoted (`promotion`), to be
    told beside popularity; `model.num_promotions` says how many.
    `user_ttl_days` lets go of users who did nothing for so many days (UTC) of the watermark;
    0 keeps them. `max_state_mb` (10**6 bytes) bounds all that is held, by its content: users active
    longest ago give way. What has a horizon of its own (keys, open exposures) or is needed by
    number (items) does not; should it leave users less than a tenth, they keep a tenth.
    """

    history_length: int = 50
    attribution_ms: int = 30 * MINUTE_MS
    attribution_by_outcome_ms: dict[str, int] = field(default_factory=dict)
    attribution_by_policy_ms: dict[str, int] = field(default_factory=dict)
    lateness_ms: int = MINUTE_MS
    dedup_ms: int = 7 * DAY_MS
    half_lives_days: tuple[float, ...] = (1.0, 7.0, 28.0)
    covisits: int = 0
    event_types: tuple[str, ...] = (*TOKEN_TYPES, "return", OTHER)
    target_types: tuple[str, ...] = TOKEN_TYPES
    outcome_types: tuple[str, ...] = ("click", "cart", "purchase")
    promotions: tuple[str, ...] = ()
    held_out_share: float = 0.01
    user_ttl_days: int = 0
    max_state_mb: float = 2_048.0

    def __post_init__(self) -> None:
        """Check every key; raise ConfigError naming the first that is wrong."""
        for key in _SEVERAL:
            object.__setattr__(self, key, tuple(getattr(self, key)))  # TOML gives lists
        self._check_numbers()
        self._check_types()

    def _check_numbers(self) -> None:
        for key, least, most in (
            ("history_length", 2, 10_000),
            ("attribution_ms", 1, 10**12),
            ("lateness_ms", 0, 10**12),
            ("dedup_ms", 0, 10**12),
            ("covisits", 0, 1_000),
            ("user_ttl_days", 0, 100_000),
        ):
            _expect(
                least <= getattr(self, key) <= most, key, self, f"a whole number {least}..{most}"
            )
        _expect(0 <= self.held_out_share <= 0.5, "held_out_share", self, "a share from 0 to 0.5")
        for key in ("attribution_by_outcome_ms", "attribution_by_policy_ms"):
            fits = all(1 <= window <= 10**12 for window in getattr(self, key).values())
            _expect(fits, key, self, "whole numbers 1..10**12 by name")
        _expect(self.max_state_mb >= 0.001, "max_state_mb", self, "at least 0.001")
        positive = bool(self.half_lives_days) and min(self.half_lives_days) >= 0.001
        _expect(positive, "half_lives_days", self, "one or more days, each at least 0.001")

    def _check_types(self) -> None:
        distinct = len(set(self.promotions)) == len(self.promotions) <= 32
        _expect(distinct, "promotions", self, "0..32 distinct names of channels")
        known = set(self.event_types)
        unique = len(known) == len(self.event_types) <= 127
        _expect(unique and OTHER in known, "event_types", self, f"distinct names with {OTHER!r}")
        for key, most in (("target_types", 127), ("outcome_types", 31)):
            names = getattr(self, key)
            fits = 0 < len(names) == len(set(names)) <= most and set(names) <= known
            _expect(fits, key, self, f"1..{most} distinct names out of event_types")
        named = self.attribution_by_outcome_ms.keys() <= set(self.outcome_types)
        _expect(named, "attribution_by_outcome_ms", self, "only names out of outcome_types")

    @property
    def num_outcomes(self) -> int:
        """Outcome types, thus label bits, O."""
        return len(self.outcome_types)

    @cached_property
    def attribution_windows_ms(self) -> tuple[tuple[int, ...], ...]:
        """Attribution window by outcome type [O]: first of policies without one of their own."""
        by_outcome, policies = self.attribution_by_outcome_ms, self.attribution_by_policy_ms
        usual = tuple(by_outcome.get(name, self.attribution_ms) for name in self.outcome_types)
        return (usual, *((window,) * self.num_outcomes for window in policies.values()))

    @cached_property
    def policy_codes(self) -> dict[str, int]:
        """Policy -> its place in `attribution_windows_ms`; one that is not listed has 0."""
        return {name: code for code, name in enumerate(self.attribution_by_policy_ms, 1)}

    @property
    def longest_attribution_ms(self) -> int:
        """The longest attribution window of any policy and outcome type."""
        return max(map(max, self.attribution_windows_ms))

    @cached_property
    def type_codes(self) -> dict[str, int]:
        """Event type -> code, as stored in tokens."""
        return {name: code for code, name in enumerate(self.event_types)}

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values, as stored beside snapshots and versions."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _expect(holds: bool, key: str, config: FeatureConfig, expected: str) -> None:
    if not holds:
        seen = getattr(config, key)
        raise ConfigError(f"features.{key} is {seen!r}; expected {expected}: change this key")
