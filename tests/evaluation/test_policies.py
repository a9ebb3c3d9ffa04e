"""Values of policies from logs: by hand, where the truth is known, and as a shop really went."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.questions import Interactions
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.clicks.policies import PolicyOptions, value_policies
from ray_rec.evaluation.clicks.shown import Shown
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.options import EvaluateOptions, quick_models
from ray_rec.evaluation.reports.evaluation import write_evaluation
from ray_rec.events.schema import EVENTS, EXPOSURES, Record
from ray_rec.features.config import DAY_MS as DAY
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.serving.policy import epsilon_greedy
from tests.training.conftest import SMALL
from tests.typed import ray_rec

MILK, TEA = 0, 1
START_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# by hand


def drinks(propensity: list[float], policy: list[int] | None = None) -> Shown:
    """Milk was taken three times of four and tea never; ten days later each is shown twice."""
    item = np.array([MILK] * 4 + [TEA] * 4 + [MILK, MILK, TEA, TEA])
    taken = [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    none = np.zeros(0, np.int64)
    return Shown(
        user=np.arange(12),
        item=item,
        ts=np.array([DAY] * 8 + [11 * DAY] * 4),
        position=np.ones(12, np.int64),
        placement=np.full(12, -1),
        labels=np.array(taken, np.float32)[:, None],
        known_ms=2 * DAY,
        done=Interactions(none, none, none, none),
        category=np.array([0, 0]),
        text=np.array([0, 1]),
        key=np.arange(12, dtype=np.uint64),
        propensity=np.array([0.5] * 8 + propensity),
        policy=np.array([0] * 8 + (policy or [0] * 4)),
        policies=("drawn", "sure"),
    )


def valued(
    shown: Shown, models: tuple[str, ...] = ("item-prior",), **options: Any
) -> dict[str, Any]:
    how = PolicyOptions(models, **options)
    return value_policies(shown, ("click",), TimeOptions(at_ms=10 * DAY), how)["click"]


def estimates(value: dict[str, Any]) -> list[float]:
    return [value[name]["value"] for name in ("ips", "snips", "dm", "dr")]


def test_policies_by_hand() -> None:
    found = valued(drinks([0.5, 0.25, 0.75, 0.5]))["drawn"]
    values = found["values"]
    assert (found["slots"], found["items"], found["refused"]) == (4, 2, {})
    assert found["choosable"]["value"] == pytest.approx((2 + 4 + 4 / 3 + 2) / 4)
    assert values["logged"]["ips"]["value"] == values["logged"]["snips"]["value"] == 2 / 4
    assert values["logged"]["dm"] is None  # what it would have done instead is not told
    # Known before: (3 + 1) / (8 + 2) of all, so milk (3 + 10 · .4) / (4 + 10), tea 4 / 14.
    milk, tea = 7 / 14, 4 / 14
    # Uniform weighs 1, 2, 2/3, 1.
    dm = (milk + tea) / 2
    dr = dm + ((1 - milk) - 2 * milk + 2 / 3 * (1 - tea) - tea) / 4
    assert estimates(values["uniform"]) == pytest.approx([5 / 3 / 4, 5 / 14, dm, dr])
    # The best is milk: 2, 4, 0, 0.
    dr = milk + (2 * (1 - milk) - 4 * milk) / 4
    assert estimates(values["best by item-prior"]) == pytest.approx([2 / 4, 2 / 6, milk, dr])
    # The favourite is known where it has over a half: 0, 0, 4/3, 0.
    assert values["favourite"]["mean_weight"]["value"] == pytest.approx(1 / 3)


def test_weights_are_clipped_where_that_is_asked_for() -> None:
    values = valued(drinks([0.5, 0.25, 0.75, 0.5]), clip=1.0)["drawn"]["values"]
    assert values["uniform"]["ips"]["value"] == pytest.approx((1 + 2 / 3) / 4)
    assert values["uniform"]["clipped"] == 1 / 4


def test_each_model_makes_a_policy_and_the_first_is_that_of_uniform() -> None:
    shown = drinks([0.5, 0.25, 0.75, 0.5])
    models = ("item-prior", "logistic")
    values = valued(shown, models, select=("item rate",))["drawn"]["values"]
    assert list(values)[-2:] == ["best by item-prior", "best by logistic"]
    assert values["uniform"] == valued(shown)["drawn"]["values"]["uniform"]
    # Milk is the best by both; of how good it is they think otherwise.
    first, second = (values[f"best by {name}"] for name in models)
    assert first["ips"] == second["ips"]
    assert first["dm"] != second["dm"]


def test_each_policy_of_the_log_has_values_of_its_own() -> None:
    found = valued(drinks([0.5, 0.5, 1.0, 1.0], [0, 0, 1, 1]))
    drawn, sure = found["drawn"], found["sure"]
    assert drawn["values"]["logged"]["ips"]["value"] == 1 / 2
    # Of its two items one was shown: half of what uniform does was never made.
    assert drawn["values"]["uniform"]["uncovered"] == 0.5
    assert "support is missing: 50.0%" in drawn["values"]["uniform"]["warnings"][0]
    assert sure["values"].keys() == {"logged", "favourite", "uniform", "best by item-prior"}


def test_slots_are_drawn_by_a_stable_hash() -> None:
    found = valued(drinks([0.5, 0.25, 0.75, 0.5]), most=3)["drawn"]
    assert found["slots"] == 3
    assert found["values"]["logged"]["ips"]["value"] == pytest.approx(2 / 3)  # smallest keys


# where the truth is known

WORTH = np.array([0.05, 0.1, 0.15, 0.3, 0.2])
"""How often each of five items is taken when shown."""
CHANCES = np.array([[0.4, 0.3, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2, 0.4]])
"""What the policy `drawn` shows to users of even and of odd number."""
NUM_VISITS = 3_000


def visit(number: int, policy: str, items: list[tuple[str, float]]) -> dict[str, Any]:
    shown = [
        {"item_id": item, "position": position, "score": 0.0, "propensity": propensity}
        for position, (item, propensity) in enumerate(items, 1)
    ]
    return {
        "request_id": f"{policy}{number}",
        "user_id": f"u{number % 500}",
        "ts": START_MS + number * 60_000,
        "model_version": 0,
        "policy": policy,
        "items": shown,
    }


def visits(generator: np.random.Generator) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield exposures of three policies, each with what the items are worth."""
    for number in range(NUM_VISITS):
        chances = CHANCES[number % 2]
        item = int(generator.choice(5, p=chances))
        yield visit(number, "drawn", [(f"i{item}", float(chances[item]))]), [WORTH[item]]
        # Twelve of forty items are ranked; the first three are worth .3, what is below them .1.
        ranking = generator.permutation(40)[:12].tolist()
        choice = epsilon_greedy(12, 3, 0.4, generator)
        picks = choice.picks.tolist()
        items = [
            (f"r{ranking[p]}", q) for p, q in zip(picks, choice.propensities.tolist(), strict=True)
        ]
        yield visit(number, "exploring", items), [0.3 if p < 3 else 0.1 for p in picks]
        yield visit(number, "greedy", [(f"i{number % 5}", 1.0)]), [WORTH[number % 5]]


def put(log_url: str, shown: Iterator[tuple[dict[str, Any], list[float]]], seed: int) -> None:
    """Append exposures, and a click on each item with the probability that is given."""
    generator, exposures, events = np.random.default_rng(seed), [], []
    for exposure, worth in shown:
        user, ts = exposure["user_id"], exposure["ts"] + 1_000
        exposures.append(Record(user.encode(), msgspec.json.encode(exposure), ts))
        for item, chance in zip(exposure["items"], worth, strict=True):
            if generator.random() < chance:
                click = {
                    "event_id": f"{exposure['request_id']}-{item['position']}",
                    "user_id": user,
                    "item_id": item["item_id"],
                    "event_type": "click",
                    "ts": ts,
                    "request_id": exposure["request_id"],
                }
                events.append(Record(user.encode(), msgspec.json.encode(click), ts))
    with open_log(log_url) as log:
        create_standard_topics(log, 2)
        log.append(EXPOSURES, exposures)
        log.append(EVENTS, events)


def configured(log_url: str) -> RunConfig:
    return load_config(None, (*SMALL, f"log={log_url}"), environ={})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    url = f"sqlite:///{tmp_path_factory.mktemp('visits')}/log.db"
    put(url, visits(np.random.default_rng(2)), seed=3)
    options = EvaluateOptions("off-policy", ("item-prior",), time=TimeOptions(0.3))
    return evaluate(configured(url), options)


def covers(value: dict[str, Any], truth: float, names: tuple[str, ...]) -> bool:
    return all(value[name]["low"] <= truth <= value[name]["high"] for name in names)


def test_intervals_hold_what_policies_are_worth(report: dict[str, Any]) -> None:
    found = report["policies"]["click"]["drawn"]
    values, weighted = found["values"], ("ips", "snips", "dr")
    assert covers(values["logged"], float((CHANCES @ WORTH).mean()), ("ips", "snips"))
    assert covers(values["uniform"], WORTH.mean(), weighted)
    assert covers(values["best by item-prior"], WORTH.max(), weighted)
    assert values["uniform"]["dm"]["value"] == pytest.approx(WORTH.mean(), abs=0.02)
    assert values["uniform"]["uncovered"] == 0
    assert values["uniform"]["warnings"] == ()
    low, high = (found["choosable"][end] for end in ("low", "high"))
    assert low <= 5 <= high
    assert list(found["refused"]) == ["favourite"]
    assert "at 0.0% of the slots only" in found["refused"]["favourite"]


def test_exploring_tells_what_it_costs(report: dict[str, Any]) -> None:
    found = report["policies"]["click"]["exploring"]
    assert covers(found["values"]["logged"], 0.6 * 0.3 + 0.4 * 0.1, ("ips", "snips"))
    assert covers(found["values"]["favourite"], 0.3, ("ips", "snips"))
    # A slot has its own item and the nine below the first three.
    assert found["choosable"]["value"] == pytest.approx(10, abs=0.5)
    assert found["values"].keys() == {"logged", "favourite"}
    assert "it showed 40 items, and by its propensities" in found["refused"]["uniform"]
    assert "under another policy name" in found["refused"]["best by item-prior"]


def test_without_chance_nothing_but_the_logged_has_a_value(report: dict[str, Any]) -> None:
    found = report["policies"]["click"]["greedy"]
    assert covers(found["values"]["logged"], WORTH.mean(), ("ips", "snips"))
    assert found["values"]["favourite"]["ips"] == found["values"]["logged"]["ips"]
    assert "every propensity is 1" in found["refused"]["uniform"]


def test_values_as_files(report: dict[str, Any], tmp_path: Path) -> None:
    headline = write_evaluation(report, tmp_path)
    uniform = report["policies"]["click"]["drawn"]["values"]["uniform"]
    quoted = headline["values"]["click"]["drawn"]["uniform"]
    ends = [uniform["dr"][part] for part in ("value", "low", "high")]
    assert quoted["dr"] == pytest.approx(ends, abs=1e-5)
    assert quoted["effective_rows"] == pytest.approx(uniform["effective_rows"], abs=0.1)
    assert any(
        "click, greedy: no value of uniform, best by item-prior: every" in warning
        for warning in headline["warnings"]
    )
    stored = msgspec.json.decode((tmp_path / "evaluation.json").read_bytes())
    assert stored["policies"]["click"]["drawn"]["values"]["logged"]["dm"] is None
    page = (tmp_path / "evaluation.html").read_text()
    assert "<h2>click, from the log of drawn</h2>" in page
    assert "effective rows" in page
    assert "every propensity is 1" in page


# as a shop really went


def test_open_bandit_from_tables_to_values(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Uniform choice, valued from Thompson sampling's log, is worth what random choice earned."""
    table = pq.read_table(shared_data / "open_bandit_small" / "events.parquet")
    table = table.filter(pc.equal(pc.cast(table["campaign"], "string"), "men"))
    number = pa.array(np.arange(len(table)))
    table = table.append_column("user_id", number).append_column("request_id", number)
    names = ["user_id", "request_id", "item_id", "ts", "position"]
    pq.write_table(table.select([*names, "propensity", "policy"]), tmp_path / "shown.parquet")
    clicks = table.filter(pc.equal(table["click"], 1)).select(names)
    kind = pa.array(["click"] * len(clicks))
    pq.write_table(clicks.append_column("event_type", kind), tmp_path / "clicks.parquet")

    monkeypatch.chdir(tmp_path)
    log = "sqlite:///log.db"
    ray_rec(
        capsys,
        *(
            "data",
            "import",
            "clicks.parquet",
            "--exposures",
            "shown.parquet",
            "--set",
            f"log={log}",
        ),
    )
    ray_rec(
        capsys,
        "evaluate",
        "--log",
        log,
        "--protocol",
        "off-policy",
        "--quantile",
        "0.1",
        "--out",
        "o",
    )
    report = msgspec.json.decode((tmp_path / "o" / "evaluation.json").read_bytes())
    thompson, chance = (report["policies"]["click"][name] for name in ("bts", "random"))
    # The same numbers without log, join and reward model.
    ts, by_thompson = table["ts"].to_numpy(), pc.equal(pc.cast(table["policy"], "string"), "bts")
    late = (ts >= TimeOptions(0.1).begin_ms(ts)) & by_thompson.to_numpy()
    weight = 1 / 34 / table["propensity"].to_numpy()[late].astype(np.float64)
    click = table["click"].to_numpy()[late]
    uniform = thompson["values"]["uniform"]
    assert (thompson["slots"], thompson["items"]) == (len(click), 34)
    assert uniform["ips"]["value"] == pytest.approx((weight * click).mean())
    assert uniform["snips"]["value"] == pytest.approx((weight * click).sum() / weight.sum())
    truth = chance["values"]["logged"]["ips"]
    assert chance["values"]["uniform"]["ips"]["value"] == pytest.approx(truth["value"])
    for name in ("ips", "snips", "dr"):
        assert max(uniform[name]["low"], truth["low"]) < min(uniform[name]["high"], truth["high"])
    assert "favourite" in thompson["refused"]


# bad input


def test_a_log_without_rewards_on_both_sides() -> None:
    shown = drinks([0.5, 0.5, 0.5, 0.5])
    shown.labels[8:] = 0
    with pytest.raises(DataError, match=r"of 8 learned and 4 later .* none of \['click'\]"):
        valued(shown)


def test_propensities_that_are_absent() -> None:
    with pytest.raises(DataError, match="propensity of choice 1 is nan: absent"):
        valued(drinks([0.5, float("nan"), 0.5, 0.5]))


def test_models_that_cannot_say_what_was_not_shown() -> None:
    with pytest.raises(ConfigError, match="no model 'click-head' here; known are item-prior"):
        EvaluateOptions("off-policy", ("click-head",))
    with pytest.raises(ConfigError, match=r"no feature 'item rat'; .* did you mean 'item rate'"):
        valued(drinks([0.5, 0.5, 0.5, 0.5]), ("logistic",), select=("item rat",))
    with pytest.raises(ConfigError, match="or policies"):
        EvaluateOptions("off-policy", quick_models("off-policy"), seeds=(1,))
