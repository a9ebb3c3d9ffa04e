"""Totals, means and rates against numbers worked out by hand; no window is counted twice."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.tracking.account import Account
from ray_rec.tracking.measures import MEASURES, OTHER, measured


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(clock: Clock) -> Account:
    return Account(clock)


def test_before_the_first_window_nothing_is_told(account: Account) -> None:
    assert account.read() == {}


def test_counts_add_up_and_values_are_the_newest(account: Account, clock: Clock) -> None:
    account.add({"window": 0, "events": 10, "late": 1, "dead_not_json": 2, "watermark_ms": 5_000})
    clock.now += 1
    account.add({"window": 1, "events": 5, "late_exposures": 3, "watermark_ms": 7_500, "users": 4})
    told = account.read()
    assert told["windows"] == 2
    assert told["windows_repeated"] == 0
    assert told["events"] == 15
    assert (told["late/events"], told["late/exposures"]) == (1, 3)
    assert told["dead_letters/not_json"] == 2
    assert told["window"] == 1
    assert told["watermark_seconds"] == 7.5
    assert told["other/users"] == 4


def test_rates_count_from_the_begin_of_the_oldest_window(account: Account, clock: Clock) -> None:
    # begun at 98 and done at 100: 100 events in 2 s; what is joined is joined while it is read
    stages = {"read_s": 0.5, "join_s": 0.4, "learn_s": 1.5}
    account.add({"window": 0, "events": 100, "examples": 20, **stages})
    assert account.read()["events_per_second"] == 50
    assert account.read()["examples_per_second"] == 10
    clock.now += 2  # and 60 in the next 2 s: 160 events in 4 s
    account.add({"window": 1, "events": 60, "examples": 0, "learn_s": 2.0})
    assert account.read()["events_per_second"] == 40


def test_a_window_leaves_after_a_minute_and_the_newest_never(
    account: Account, clock: Clock
) -> None:
    account.add({"window": 0, "events": 100, "learn_s": 1.0, "auc": 0.5})
    clock.now += 50
    account.add({"window": 1, "events": 30, "learn_s": 3.0, "auc": 0.75})
    both = account.read()
    assert both["window_seconds/learn"] == 2.0
    assert both["auc/click"] == 0.625
    clock.now += 11  # the first is 61 s old; the second was begun 14 s ago
    left = account.read()
    assert left["window_seconds/learn"] == 3.0
    assert left["events_per_second"] == pytest.approx(30 / 14)
    clock.now += 586  # begun 600 s ago
    assert account.read()["events_per_second"] == pytest.approx(0.05)
    assert account.read()["auc/click"] == 0.75
    assert account.read()["events"] == 130


def test_a_window_learned_again_costs_time_and_counts_nothing(
    account: Account, clock: Clock
) -> None:
    for number, learn_s in ((3, 1.0), (4, 1.0), (3, 4.0)):
        account.add({"window": number, "events": 10, "learn_s": learn_s})
        clock.now += 1
    told = account.read()
    assert told["events"] == 20
    assert (told["windows"], told["windows_repeated"]) == (3, 1)
    assert told["window_seconds/learn"] == 2.0
    assert told["window"] == 3


def test_a_loss_that_is_no_number_shows_as_such(account: Account) -> None:
    account.add({"window": 0, "recall_loss": 2.0})
    account.add({"window": 1, "recall_loss": math.nan})
    assert math.isnan(account.read()["loss/recall"])


def test_a_mean_is_over_the_windows_that_told_it(account: Account) -> None:
    account.add({"window": 0, "hr@10": 0.5})
    account.add({"window": 1})
    account.add({"window": 2, "hr@10": 1.0})
    assert account.read()["hr_at_10/recall"] == 0.75


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1))
def test_each_number_is_counted_when_it_is_first_passed(windows: list[tuple[int, int]]) -> None:
    account, counted, newest = Account(Clock()), 0, -1
    for number, events in windows:
        account.add({"window": number, "events": events})
        counted += events if number > newest else 0
        newest = max(newest, number)
    assert account.read().get("events", 0) == counted


def test_every_measurement_stands_in_the_table_with_its_labels() -> None:
    keys = ("events", "exposures", "examples", "records", "duplicates", "exposure_duplicates")
    keys += ("late", "late_exposures", "late_outcomes", "dead_not_json", "recall_loss", "auc")
    keys += (
        "lost",
        "set_aside",
        "click_loss",
        "hr@10",
        "ndcg@10",
        "learned_recall_loss",
        "read_s",
        "watermark_ms",
    )
    told = measured({**dict.fromkeys(keys, 1), "window": 1})
    paths = {**told.counts, **told.means, **told.values}
    assert len(paths) == len(keys) + 1
    for path in paths:
        name, *labels = path.split("/")
        assert name != OTHER
        assert len(labels) == len(MEASURES[name].labels), path
        assert (MEASURES[name].kind == "counter") == (path in told.counts), path


def test_what_is_no_number_is_left_out() -> None:
    told = measured({"window": 1, "reason": "exploded", "promoted": True})
    assert told.values == {"window": 1.0, "other/promoted": 1.0}
