"""What another policy would have earned, from the log of the one that chose.

Every choice is weighted by how much likelier the other policy was to make it. That holds where
the log could tell: a policy that does what was never tried has no value that anybody can know from
this log, so `Value.warnings` (also logged) is to be read before the numbers.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.metrics.bootstrap import Estimate, ratios_by_user
from ray_rec.features.arrays import AnyArray, Float64, Int64

MIN_EFFECTIVE_ROWS = 100
"""Below that an interval rests on a few heavy rows, and is too narrow."""

TOLERANCE = 1e-4
"""What float32 probabilities add up to is 1 within that."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """n logged choices, and what the policy to be valued would have done in their place.

    Raises:
        DataError: no rows, columns of unequal length, propensities that are absent, zero or no
            probabilities, rewards that are no numbers, or half a reward model.
    """

    reward: Float64
    """[n] what came of the choice: 1 for a click."""
    propensity: Float64
    """[n] with which the logging policy chose it, over 0."""
    target: Float64
    """[n] with which the policy to be valued chooses the same."""
    expected: Float64 | None = None
    """[n] what a reward model expects of that policy: π(a|x) · q(x, a), summed over actions a."""
    predicted: Float64 | None = None
    """[n] what it expects of the choice that was made, q(x, a)."""
    uncovered: Float64 | None = None
    """[n] how much of that policy's probability lies on what the log cannot tell of."""
    users: AnyArray | None = None
    """[n] whose choices they are, for the intervals; each its own where not given."""

    def __post_init__(self) -> None:
        """Reject what no value could be made of, naming the column and the first wrong row."""
        columns = {name: column for name, column in vars(self).items() if column is not None}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of unequal length ({lengths}); give one value a choice")
        if not len(self.reward):
            raise DataError("no logged choices; take a longer stretch of the log")
        if (self.expected is None) != (self.predicted is None):
            raise DataError("half a reward model; give both `expected` and `predicted`, or neither")
        for name in columns.keys() & {"reward", "expected", "predicted"}:
            _reject(name, columns[name], ~np.isfinite(columns[name]), "no number")
        p, target = self.propensity, self.target
        _reject("propensity", p, np.isnan(p), "absent; log it with every choice")
        _reject("propensity", p, ~((p > 0) & (p <= 1)), "none of something that was chosen")
        _reject("target", target, ~((target >= 0) & (target <= 1)), "no probability")

    @classmethod
    def under(
        cls,
        policy: AnyArray,
        action: Int64,
        reward: AnyArray,
        propensity: AnyArray,
        *,
        rewards: AnyArray | None = None,
        logging_policy: AnyArray | None = None,
        users: AnyArray | None = None,
    ) -> Self:
        """Return choices among A actions, given whole distributions.

        Args:
            policy: [n, A] probabilities of the policy to be valued.
            action: [n] what was chosen, below A.
            reward: [n].
            propensity: [n].
            rewards: [n, A] expected reward of each action, by a model: for DM and DR.
            logging_policy: [n, A], by which missing support is known; without it, actions that
                were never chosen are what the log cannot tell of.
            users: [n].

        Raises:
            DataError: as the class, or a distribution that is none.
        """
        n, num_actions = policy.shape
        for name, given in (("rewards", rewards), ("logging_policy", logging_policy)):
            if given is not None and given.shape != policy.shape:
                raise DataError(f"{name} is {given.shape}; expected {policy.shape}, as `policy`")
        if len(action) != n:
            raise DataError(f"{len(action)} actions of {n} choices; give one for each")
        _reject("action", action, (action < 0) | (action >= num_actions), "none of `policy`")
        total = policy.sum(axis=1)
        _reject("sum of policy", total, ~(np.abs(total - 1) <= TOLERANCE), "not 1")
        row = np.arange(n)
        tried = np.bincount(action, minlength=num_actions)
        missing = (tried if logging_policy is None else logging_policy) == 0
        return cls(
            np.asarray(reward, np.float64),
            np.asarray(propensity, np.float64),
            policy[row, action].astype(np.float64),
            None if rewards is None else (policy * rewards).sum(axis=1, dtype=np.float64),
            None if rewards is None else rewards[row, action].astype(np.float64),
            np.where(missing, policy, 0).sum(axis=1, dtype=np.float64),
            users,
        )


class Value(NamedTuple):
    """Estimates of the mean reward of a choice, with 95 % intervals by bootstrap over users.

    The interval of DM knows nothing of how wrong the reward model is.
    """

    ips: Estimate  # Horvitz and Thompson 1952
    snips: Estimate  # Swaminathan and Joachims 2015; NaN where the policies share no choice
    dm: Estimate | None  # the reward model alone
    dr: Estimate | None  # the model, put right by weighted residuals: Dudík, Langford and Li 2011
    mean_weight: Estimate
    """Of unclipped weights: 1 where the log has support and its propensities are right."""
    effective_rows: float
    """As many equal weights would tell as much: (Σw)² / Σw², Kish 1965."""
    clipped: float
    """Share of the choices whose weight was cut."""
    uncovered: float | None
    """Probability that the policy puts on what the log cannot tell of; None: nobody said."""
    warnings: tuple[str, ...]


def value(choices: Choices, clip: float | None = None, seed: int = 0) -> Value:
    """Return what the policy to be valued earns, by four estimators.

    Args:
        choices: the log.
        clip: no weight counts more, in IPS, SNIPS and DR (Ionides 2008): less variance for a bias
            towards 0, or in DR towards the model. None: all as they are, and IPS is unbiased.
        seed: of the resampling.

    Raises:
        ConfigError: `clip` is not over 0.
    """
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip is {clip}; it must be over 0, or None to clip nothing")
    raw = choices.target / choices.propensity
    weight = raw if clip is None else np.minimum(raw, clip)
    one, earned = np.ones(len(raw)), weight * choices.reward
    over, under = [earned, earned, raw], [one, weight, one]
    if choices.expected is not None and choices.predicted is not None:
        residual = weight * (choices.reward - choices.predicted)
        over += [choices.expected, choices.expected + residual]
        under += [one, one]
    users = np.arange(len(raw)) if choices.users is None else choices.users
    ips, snips, mean_weight, *modelled = ratios_by_user(
        np.stack(over, axis=1), np.stack(under, axis=1), users, seed
    )
    dm, dr = modelled or (None, None)
    square = float((weight**2).sum())
    effective = float(weight.sum() ** 2 / square) if square else 0.0
    uncovered = None if choices.uncovered is None else float(choices.uncovered.mean())
    warnings = _warnings(mean_weight, effective, uncovered, bool(earned.any()))
    for warning in warnings:
        _log.warning(warning)
    clipped = float((raw > weight).mean())
    return Value(ips, snips, dm, dr, mean_weight, effective, clipped, uncovered, warnings)


def _warnings(
    mean_weight: Estimate, effective_rows: float, uncovered: float | None, rewarded: bool
) -> tuple[str, ...]:
    found = []
    if uncovered:
        found.append(
            f"support is missing: {uncovered:.1%} of the policy's choices were never made in the "
            "log; of these IPS, SNIPS and the correction of DR know nothing"
        )
    if abs(mean_weight.value - 1) > 3 * mean_weight.error + TOLERANCE:
        found.append(
            f"weights are {mean_weight.value:.3f} ± {mean_weight.error:.3f} on average, more than "
            "three standard errors from the 1 they should be: the log lacks support, or its "
            "propensities are not those that chose"
        )
    if effective_rows < MIN_EFFECTIVE_ROWS:
        found.append(
            f"weights so unequal that they are worth {effective_rows:.1f} choices: intervals are "
            "too narrow; take more of the log, clip, or value a policy nearer to the log's"
        )
    if not rewarded:
        found.append(
            "nothing came of any choice that it shares with the log: a value of 0 by IPS and SNIPS "
            "is no more certain than that, whatever their intervals say"
        )
    return tuple(found)


def _reject(name: str, column: AnyArray, wrong: AnyArray, what: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{name} of choice {row} is {column[row]}: {what}")
