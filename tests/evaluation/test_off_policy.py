"""Off-policy values by hand, against another library's, and against what a policy really earned."""

import logging
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.metrics.bootstrap import mean_by_user
from ray_rec.evaluation.metrics.off_policy import Choices, value

# Four choices; weights are 1/2, 2, 0 and 1.
REWARD = np.array([1.0, 1.0, 1.0, 0.0])
PROPENSITY = np.array([0.5, 0.25, 0.5, 0.5])
TARGET = np.array([0.25, 0.5, 0.0, 0.5])
EXPECTED = np.array([0.5, 0.5, 0.25, 0.25])
PREDICTED = np.array([0.5, 0.75, 0.25, 0.5])


def test_four_estimators_by_hand() -> None:
    found = value(Choices(REWARD, PROPENSITY, TARGET, EXPECTED, PREDICTED))
    assert found.ips.value == (1 / 2 + 2) / 4
    assert found.snips.value == pytest.approx((1 / 2 + 2) / 3.5)
    assert found.mean_weight.value == 3.5 / 4
    assert found.effective_rows == pytest.approx(3.5**2 / (1 / 4 + 4 + 1))
    assert found.dm is not None
    assert found.dr is not None
    assert found.dm.value == 1.5 / 4
    # Residuals: 1/2 · 1/2, 2 · 1/4, 0, 1 · -1/2.
    assert found.dr.value == pytest.approx((1.5 + 1 / 4 + 1 / 2 - 1 / 2) / 4)
    assert found.ips.low <= found.ips.value <= found.ips.high


def test_clipped_weights_by_hand() -> None:
    found = value(Choices(REWARD, PROPENSITY, TARGET, EXPECTED, PREDICTED), clip=1.0)
    # 1/2, 1, 0, 1: one of four was cut; what it should average is judged before that.
    assert found.clipped == 1 / 4
    assert found.ips.value == 1.5 / 4
    assert found.snips.value == pytest.approx(1.5 / 2.5)
    assert found.dr is not None
    assert found.dr.value == pytest.approx((1.5 + 1 / 4 + 1 / 4 - 1 / 2) / 4)
    assert found.mean_weight.value == 3.5 / 4


def test_whole_distributions_become_choices() -> None:
    policy = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    rewards = np.array([[1.0, 0.0, 0.5], [0.2, 0.6, 0.1]])
    made = Choices.under(
        policy, np.array([0, 1]), np.array([1, 0]), np.array([0.5, 0.5]), rewards=rewards
    )
    assert made.target.tolist() == [0.2, 1.0]
    assert made.expected is not None
    assert made.predicted is not None
    assert made.uncovered is not None
    assert made.expected.tolist() == pytest.approx([0.2 + 0.25, 0.6])
    assert made.predicted.tolist() == [1.0, 0.6]
    assert made.uncovered.tolist() == [0.5, 0.0]  # the third action was never chosen
    logging_policy = np.array([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    known = Choices.under(
        policy, np.array([0, 1]), REWARD[:2], np.array([0.5, 0.5]), logging_policy=logging_policy
    )
    assert known.uncovered is not None
    assert known.uncovered.tolist() == [0.3, 0.0]
    assert known.expected is None


def test_missing_support_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    n = 1000
    policy = np.tile([0.25, 0.75], (n, 1))
    with caplog.at_level(logging.WARNING, "ray_rec.evaluation.metrics.off_policy"):
        found = value(Choices.under(policy, np.zeros(n, int), np.ones(n), np.ones(n)))
    assert found.uncovered == 0.75
    assert found.dm is None
    assert found.dr is None
    support, weights = found.warnings
    assert "support is missing: 75.0%" in support
    assert "weights are 0.250" in weights
    assert [record.getMessage() for record in caplog.records] == [support, weights]


def test_a_sound_log_warns_of_nothing() -> None:
    action = np.arange(2000) % 2
    policy = np.tile([0.4, 0.6], (2000, 1))
    found = value(Choices.under(policy, action, action, np.full(2000, 0.5)))
    assert found.warnings == ()
    assert found.ips.value == pytest.approx(0.6)
    assert found.uncovered == 0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator, policy = np.random.default_rng(0), np.tile([0.4, 0.6], (400, 1))
    covered = np.zeros(3)
    for _ in range(100):
        action = generator.integers(0, 2, 400)
        reward = generator.random(400) < np.where(action, 0.5, 0.25)  # worth .4 · .25 + .6 · .5
        rewards = np.tile([0.3, 0.3], (400, 1))
        log = Choices.under(policy, action, reward, np.full(400, 0.5), rewards=rewards)
        found = value(log)
        assert found.dr is not None
        estimates = (found.ips, found.snips, found.dr)
        covered += [estimate.low <= 0.4 <= estimate.high for estimate in estimates]
    # Of 100 at 95 %, three standard deviations are 6.5.
    assert (np.abs(covered - 95) <= 6.5).all()


def test_a_value_without_any_reward_is_told() -> None:
    found = value(Choices(np.zeros(500), np.full(500, 0.5), np.full(500, 0.5)))
    assert (found.ips.low, found.ips.high) == (0, 0)
    assert "nothing came of any choice" in found.warnings[-1]


def test_few_effective_rows_are_told() -> None:
    target = np.append(np.full(999, 0.001), 1.0)
    found = value(Choices(np.ones(1000), np.full(1000, 0.002), target))
    # Weights: 999 halves and one of 500.
    assert found.effective_rows == pytest.approx(999.5**2 / (999 / 4 + 250_000))
    assert "worth 4.0 choices" in found.warnings[-1]


def test_policies_that_share_no_choice() -> None:
    found = value(Choices(np.ones(5), np.ones(5), np.zeros(5)))
    assert (found.ips.value, found.effective_rows) == (0, 0)
    assert np.isnan(found.snips.value)
    assert "lacks support" in found.warnings[0]


def test_choices_of_one_user_are_not_evidence_of_their_own() -> None:
    generator = np.random.default_rng(3)
    reward = generator.integers(0, 2, 300).astype(float)
    once = value(Choices(reward, np.full(300, 0.5), np.full(300, 0.5)))
    again = [np.repeat(column, 4) for column in (reward, np.full(300, 0.5), np.full(300, 0.5))]
    users = np.repeat(np.arange(300), 4)
    assert value(Choices(*again, users=users)).ips.error == pytest.approx(once.ips.error)
    assert value(Choices(*again)).ips.error < 0.6 * once.ips.error


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 1)), min_size=1, max_size=20))
def test_a_policy_of_its_own_earns_what_was_earned(rows: list[tuple[float, float]]) -> None:
    reward, propensity = (np.array(column) for column in zip(*rows, strict=True))
    guess = reward / 2
    found = value(Choices(reward, propensity, propensity, guess, guess))
    assert found.ips.value == pytest.approx(reward.mean())
    assert found.snips.value == pytest.approx(reward.mean())
    assert found.effective_rows == pytest.approx(len(rows))
    assert found.dr is not None
    assert found.dr.value == pytest.approx(reward.mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.5, 0.5])}, "propensity of choice 1 is 0.0"),
        ({"propensity": np.array([0.5, 0.5, 1.5, 0.5])}, "propensity of choice 2 is 1.5"),
        ({"propensity": np.array([0.5, 0.5, 0.5, np.nan])}, "choice 3 is nan: absent; log it"),
        ({"reward": np.array([0.5, np.inf, 0.5, 0.5])}, "reward of choice 1 is inf: no number"),
        ({"target": np.array([-0.1, 0.5, 0.5, 0.5])}, "target of choice 0 is -0.1"),
        ({"target": np.array([0.5])}, "unequal length"),
        ({"expected": EXPECTED}, "half a reward model"),
        ({"users": np.arange(3)}, "unequal length"),
        (dict.fromkeys(("reward", "propensity", "target"), np.zeros(0)), "no logged choices"),
    ],
)
def test_logs_that_have_no_value(change: dict[str, np.ndarray], message: str) -> None:
    columns = {"reward": REWARD, "propensity": PROPENSITY, "target": TARGET}
    with pytest.raises(DataError, match=message):
        Choices(**columns | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": np.array([[0.5, 0.4]])}, "sum of policy of choice 0 is 0.9: not 1"),
        ({"policy": np.array([[np.nan, 1.0]])}, "sum of policy of choice 0 is nan"),
        ({"action": np.array([2])}, "action of choice 0 is 2: none of"),
        ({"action": np.array([0, 1])}, "2 actions of 1 choices"),
        ({"rewards": np.zeros((1, 3))}, r"rewards is \(1, 3\); expected \(1, 2\)"),
    ],
)
def test_distributions_that_are_none(change: dict[str, np.ndarray], message: str) -> None:
    given = {"policy": np.array([[0.5, 0.5]]), "action": np.array([0])}
    with pytest.raises(DataError, match=message):
        Choices.under(reward=np.ones(1), propensity=np.ones(1), **given | change)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_clip_that_cannot_work(clip: float) -> None:
    with pytest.raises(ConfigError, match="clip is"):
        value(Choices(REWARD, PROPENSITY, TARGET), clip=clip)


REFERENCE = {
    ("all", None): (0.002359639510167123, 0.002333713890238159, 0.002191158644418993),
    ("all", 20.0): (0.002359639510167123, 0.002811462108790677, 0.003227890860997778),
    ("men", None): (0.003008626298647068, 0.003189423133795056, 0.003009505212905602),
    ("men", 20.0): (0.003008626298647068, 0.003489628414680166, 0.003340250959854033),
    ("women", None): (0.007437577418232321, 0.002373046098975893, 0.005852756104788624),
    ("women", 20.0): (0.005555589944276577, 0.006533750327501682, 0.006092527943808067),
}
"""IPS, SNIPS and DR of the uniform policy from the log of Thompson sampling, by campaign and clip.

From obp 0.4.1 (numpy 2.4): `estimate_policy_value` of `InverseProbabilityWeighting`, its
self-normalised kind and `DoublyRobust`, with position 0, action_dist 1/A and rates as in `_uniform`
as regression model. That version does not clip: pscore is raised to 1 / (A · clip), which is alike.
"""
MODEL = {"all": 0.0042837361330812515, "men": 0.004198595369923724, "women": 0.003514301446494449}
"""Its `DirectMethod`."""


def _uniform(folder: Path, campaign: str) -> tuple[Choices, np.ndarray]:
    """Return what Thompson sampling logged, to value uniform choice by, and the clicks of that."""
    table = pq.read_table(folder / "open_bandit_small" / "events.parquet")
    table = table.filter(pc.equal(pc.cast(table["campaign"], "string"), campaign))
    policy = np.array(table["policy"].to_pylist())
    bts, reward = policy == "bts", np.array(table["click"], float)
    item = np.array([int(name.split(":")[1]) for name in table["item_id"].to_pylist()])
    num_items = int(item.max()) + 1
    action, clicks = item[bts], reward[bts]
    shown = np.bincount(action, minlength=num_items)
    rates = (np.bincount(action, clicks, num_items) + 10 * clicks.mean()) / (shown + 10)
    shape = (len(action), num_items)
    choices = Choices.under(
        np.full(shape, 1 / num_items),
        action,
        clicks,
        np.array(table["propensity"], float)[bts],
        rewards=np.broadcast_to(rates, shape),
    )
    return choices, reward[policy == "random"]


@pytest.mark.parametrize(("campaign", "clip"), REFERENCE)
def test_open_bandit_as_another_library_values_it(
    shared_data: Path, campaign: str, clip: float | None
) -> None:
    """How obp's numbers were made is said below `REFERENCE` and `MODEL`."""
    found = value(_uniform(shared_data, campaign)[0], clip)
    assert found.dm is not None
    assert found.dr is not None
    got = (found.ips.value, found.snips.value, found.dr.value)
    assert got == pytest.approx(REFERENCE[campaign, clip], rel=1e-9)
    assert found.dm.value == pytest.approx(MODEL[campaign], rel=1e-9)


@pytest.mark.parametrize("campaign", ["all", "men"])
def test_open_bandit_as_it_really_went(shared_data: Path, campaign: str) -> None:
    choices, clicks = _uniform(shared_data, campaign)
    found = value(choices)
    (truth,) = mean_by_user(clicks[:, None], np.arange(len(clicks)))
    assert found.dr is not None
    for estimate in (found.ips, found.snips, found.dr):
        assert estimate.low <= truth.value <= estimate.high
    assert found.uncovered == 0
    assert 300 < found.effective_rows < 700


def test_open_bandit_where_the_log_cannot_tell(shared_data: Path) -> None:
    found = value(_uniform(shared_data, "women")[0])
    # One choice of propensity 1e-6 weighs 21,739.
    assert found.effective_rows == pytest.approx(2.0778, abs=1e-4)
    assert "worth 2.1 choices" in found.warnings[-1]
