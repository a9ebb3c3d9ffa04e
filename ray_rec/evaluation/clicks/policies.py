"""What other policies would have earned at the slots of the log, valued from its propensities.

A choice is one item at one slot of an answer; its value is the reward to expect of a slot with all
else as it was: user, time, position, the other items, and the histories that the logged policy
made. Slots are taken one by one: what is best may stand at several of an answer. Of each policy
that the log names in `policy` these are valued:

| policy | at each slot | known |
| --- | --- | --- |
| `logged` | does what was done | always |
| `favourite` | shows what the logged one does when it does not explore | if that has over ½ |
| `uniform` | shows each of the items alike | if the items are the same at every slot |
| `best by M` | shows the item that model M expects most of | likewise |

The log tells what was shown, and not what else could have been. So a policy of one name is taken to
choose among the same items at every slot, all that it ever showed, and that is tested: inverse
propensities average how many items can stand at a slot (Horvitz and Thompson 1952), and that
reaches the number of all only if each can stand everywhere. The favourite needs no such set, as
what has over ½ has no rival. What falls short by over three standard errors is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.clicks.offline import has_both
from ray_rec.evaluation.clicks.rewards import Rewards
from ray_rec.evaluation.clicks.shown import Shown, Slots
from ray_rec.evaluation.metrics.bootstrap import Estimate, mean_by_user
from ray_rec.evaluation.metrics.off_policy import TOLERANCE, Choices, Value, value
from ray_rec.features.arrays import Bool, Float64, Int64

LOGGED, FAVOURITE, UNIFORM, BEST = "logged", "favourite", "uniform", "best by {}"

Plain = dict[str, Any]


@dataclass(frozen=True)
class PolicyOptions:
    """How policies are valued.

    `models`, out of `CLICK_MODELS`, are of the reward: each makes a policy of its own, and the
    first is that of DM and DR for `uniform`. They learn from the features in `select` (none: all).
    No weight counts for more than `clip`. `most` slots are asked, by a stable hash (0: all).
    """

    models: Sequence[str]
    select: Sequence[str] = ()
    clip: float | None = None
    most: int = 0
    seed: int = 0


def value_policies(
    shown: Shown, outcomes: Sequence[str], time: TimeOptions, options: PolicyOptions
) -> Plain:
    """Return by outcome, and by policy of the log, what it and others earn.

    Args:
        shown: rewards are learned where the outcome was known at the moment that `time` makes of
            its times, and policies valued where it was shown then or later.
        outcomes: names of the O outcomes, each a reward of 0 or 1.
        time: says which moment.
        options: models and weights.

    Raises:
        DataError: no outcome both happened and did not on both sides, or propensities are absent.
        ConfigError: there is no such feature, or the clip is not over 0.
    """
    begin_ms = time.begin_ms(shown.ts)
    learned, asked = shown.ts + shown.known_ms < begin_ms, shown.ts >= begin_ms
    out: Plain = {}
    for place, outcome in enumerate(outcomes):
        labels = shown.labels[:, place]
        if has_both(labels[learned]) and has_both(labels[asked]):
            rewards = Rewards(shown, place, learned, options.select, options.seed)
            logs = _logs(shown, place, _sampled(shown, asked, options.most))
            out[outcome] = {log.policy: _valued(log, rewards, options) for log in logs}
    if not out:
        raise DataError(
            f"no rewards to value policies by: of {learned.sum()} learned and {asked.sum()} later "
            f"shown items, none of {list(outcomes)} happened to some and not to others on both "
            "sides; take a longer stretch, or split it elsewhere"
        )
    return out


class _Log(NamedTuple):
    """The n slots of one logged policy that are asked about; the A items that it ever showed."""

    policy: str
    slots: Slots  # [n]
    reward: Float64  # [n]
    propensity: Float64  # [n]
    items: Int64  # [A] catalogue rows
    chosen: Int64  # [n] -> A


def _logs(shown: Shown, outcome: int, asked: Int64) -> Iterator[_Log]:
    for code, policy in enumerate(shown.policies):
        rows = asked[shown.policy[asked] == code]
        if not len(rows):
            continue
        items = np.unique(shown.item[shown.policy == code])
        yield _Log(
            policy,
            Slots(*(column[rows] for column in shown.slots)),
            shown.labels[rows, outcome].astype(np.float64),
            shown.propensity[rows],
            items,
            np.searchsorted(items, shown.item[rows]),
        )


def _sampled(shown: Shown, asked: Bool, most: int) -> Int64:
    rows = np.flatnonzero(asked)
    if not 0 < most < len(rows):
        return rows
    return np.sort(rows[np.argsort(shown.key[rows], kind="stable")[:most]])


def _valued(log: _Log, rewards: Rewards, options: PolicyOptions) -> Plain:
    """Return the values of one logged policy and of others in its place."""
    users, seed, inverse = log.slots.user, options.seed, 1 / log.propensity
    values, refused = {LOGGED: _value(log, options, log.propensity)}, dict[str, str]()
    favourite = (log.propensity > 0.5).astype(np.float64)
    weights = np.stack([inverse, favourite * inverse], axis=1)
    choosable, favoured = mean_by_user(weights, users, seed)
    if _below(favoured, 1):
        refused[FAVOURITE] = (
            f"at {favoured.value:.1%} of the slots only is an item likelier than all others "
            "together; what is favoured elsewhere is not told"
        )
    else:
        values[FAVOURITE] = _value(log, options, favourite)
    if _below(choosable, len(log.items)):
        others = UNIFORM, *(BEST.format(name) for name in options.models)
        refused |= dict.fromkeys(others, _unknown_items(log, choosable))
    else:
        values |= _by_models(log, rewards, options)
    return {
        "slots": len(log.chosen),
        "items": len(log.items),
        "choosable": choosable._asdict(),
        "values": {name: _plain(found) for name, found in values.items()},
        "refused": refused,
    }


def _by_models(log: _Log, rewards: Rewards, options: PolicyOptions) -> dict[str, Value]:
    """Return the values of what chooses by each model, and that of `uniform` with the first."""
    untried = (np.bincount(log.chosen, minlength=len(log.items)) == 0).astype(np.float64)
    asked = log.slots, log.items, log.chosen
    by_name = {name: rewards.expected(name, *asked) for name in options.models}
    first, uniform = by_name[options.models[0]], np.full(len(log.chosen), 1 / len(log.items))
    everywhere = np.full(len(log.chosen), untried.mean())
    values = {UNIFORM: _value(log, options, uniform, first.mean, first.chosen, everywhere)}
    for name, made in by_name.items():
        best, missing = (made.best == log.chosen).astype(np.float64), untried[made.best]
        values[BEST.format(name)] = _value(log, options, best, made.highest, made.chosen, missing)
    return values


def _value(
    log: _Log,
    options: PolicyOptions,
    target: Float64,
    expected: Float64 | None = None,
    predicted: Float64 | None = None,
    uncovered: Float64 | None = None,
) -> Value:
    model = expected, predicted, uncovered
    choices = Choices(log.reward, log.propensity, target, *model, users=log.slots.user)
    return value(choices, options.clip, options.seed)


def _below(found: Estimate, due: float) -> bool:
    """Return whether what should average `due` is less by over three standard errors."""
    return found.value + 3 * found.error < due * (1 - TOLERANCE)


def _unknown_items(log: _Log, choosable: Estimate) -> str:
    if (log.propensity == 1).all():
        return (
            "every propensity is 1, as of a policy without chance: nothing but what it did has a "
            "value; let it explore (serving.policy=epsilon-greedy), or log what it chose with"
        )
    return (
        f"it showed {len(log.items)} items, and by its propensities {choosable.value:.1f} ± "
        f"{choosable.error:.1f} can stand at a slot; which they are is not told: log what chooses "
        "among other items under another policy name"
    )


def _plain(found: Value) -> Plain:
    parts = found._asdict().items()
    return {name: v._asdict() if isinstance(v, Estimate) else v for name, v in parts}
