"""Click models on a few shown items worked out by hand, and never with a label of the future."""

import sys
from dataclasses import replace
from math import log, log1p
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError, DataError
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.asking.questions import Interactions
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.clicks.features import KEYS, NEVER_DAYS, click_table
from ray_rec.evaluation.clicks.importance import importance
from ray_rec.evaluation.clicks.models import CLICK_MODELS, ItemRate
from ray_rec.evaluation.clicks.offline import fit, judge_clicks
from ray_rec.evaluation.clicks.shown import Shown, read_shown
from ray_rec.evaluation.clicks.streamed import CLICK_HEAD, streamed
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.metrics.ranking import auc
from ray_rec.evaluation.options import EvaluateOptions
from ray_rec.features.config import DAY_MS
from ray_rec.features.examples import PROMOTED_SCHEMA
from ray_rec.log.base import create_standard_topics, open_log
from tests.training.conftest import SMALL
from tests.training.shop import PER_KIND, fill_items, fill_visits

DAY = DAY_MS
ANN, BOB = 0, 1
MILK, TEA = 0, 1


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def columns(*values: list[int]) -> list[np.ndarray]:
    return [np.array(column, np.int64) for column in values]


def small() -> Shown:
    """ann took milk on days 0 and 40; milk is shown on days 41 (taken), 42 and 50, tea on 50."""
    user, item, ts, position = columns(
        [ANN, BOB, ANN, ANN],
        [MILK, MILK, MILK, TEA],
        [41 * DAY, 42 * DAY, 50 * DAY, 50 * DAY],
        [1, 1, 1, 2],
    )
    labels = np.array([[1], [0], [0], [1]], np.float32)
    done = Interactions(*columns([ANN, ANN], [MILK, MILK], [0, 40 * DAY], [4, 4]))
    category = np.array([0, 0], np.int64)  # both drinks
    (placement,) = columns([0, 1, 0, 0])  # milk in the mailer on day 42
    text = np.array([0, 1], np.int64)
    key = np.arange(4, dtype=np.uint64)
    return Shown(
        *(user, item, ts, position, placement, labels, 2 * DAY, done, category, text, key),
        propensity=np.ones(4),
        policy=np.zeros(4, np.int64),
        policies=("test",),
    )


def features(shown: Shown) -> dict[str, list[float]]:
    table = click_table(shown, 0, np.array([True, True, False, False]))
    return dict(zip(table.names, table.values.T.tolist(), strict=True))


def test_features_are_what_was_known_before() -> None:
    found = features(small())
    assert found["position"] == [1, 1, 1, 2]
    assert found["item taken"] == pytest.approx([log1p(2), log1p(2), log1p(2), 0])
    assert found["item taken in 28 days"] == pytest.approx([log1p(1), log1p(1), log1p(1), 0])
    assert found["item taken in 91 days"] == found["item taken"]
    assert found["user-item taken"] == pytest.approx([log1p(2), 0, log1p(2), 0])
    assert found["user-text taken"] == found["user-item taken"]  # each has a text of its own
    assert found["user-category taken"] == pytest.approx([log1p(2), 0, log1p(2), log1p(2)])
    never = log1p(NEVER_DAYS)
    assert found["user-item days since"] == pytest.approx([log1p(1), never, log1p(10), never])


def test_rates_know_outcomes_when_their_windows_have_closed() -> None:
    found = features(small())
    # Overall (1 + 1) / (2 + 2); what was shown on day 41 is known from day 43 on.
    assert found["item shown"] == pytest.approx([0, 0, log1p(2), 0])
    rate = (1 + 10 * 0.5) / (2 + 10)
    assert found["item rate"] == pytest.approx([0, 0, log(rate / (1 - rate)), 0])
    alone = (1 + 10 * 0.5) / (1 + 10)
    assert found["placement"] == [0, 1, 0, 0]
    assert found["item-placement shown"] == pytest.approx([0, 0, log1p(1), 0])
    assert (
        found["item-placement rate"][2]
        == found["placement rate"][2]
        == pytest.approx(log(alone / (1 - alone)))
    )
    assert found["user-item rate"][2] == pytest.approx(log(alone / (1 - alone)))
    assert click_table(small(), 0, np.ones(4, bool)).times_shown.tolist() == [0, 0, 2, 0]


def test_promotions_are_told_strictly_before() -> None:
    """Tea is promoted from day 22 and from day 50 on, when it is shown; milk never."""
    rows = {"item": [TEA, TEA], "ts": [22 * DAY, 50 * DAY], "shares": [[1.0], [0.0]]}
    found = features(replace(small(), promoted=pa.table(rows, PROMOTED_SCHEMA)))
    assert found["promotion 0"] == [0, 0, 0, 1]
    assert found["promotion 1"] == [0, 0, 0, 0.5]  # as a rule, after four weeks
    assert not [name for name in features(small()) if name.startswith("promotion")]


def test_no_feature_knows_its_own_time_or_later() -> None:
    shown = small()
    before = features(shown)
    now = shown.ts >= 50 * DAY
    labels = np.where(now[:, None], 1 - shown.labels, shown.labels)
    extra = Interactions(*columns([ANN, ANN], [TEA, MILK], [50 * DAY, 51 * DAY], [4, 4]))
    done = Interactions(
        *(
            np.concatenate([getattr(part, n) for part in (shown.done, extra)])
            for n in extra.__dict__
        )
    )
    assert features(replace(shown, labels=labels, done=done)) == before


def test_what_has_no_past_at_all_has_features() -> None:
    nothing = Interactions(*columns([], [], [], []))
    found = features(replace(small(), done=nothing))
    for key in KEYS:
        assert found[f"{key} taken"] == [0, 0, 0, 0]
        assert found[f"{key} days since"] == pytest.approx([log1p(NEVER_DAYS)] * 4)


# models


def many(rows: int = 3_000, users: int = 60, items: int = 30) -> Shown:
    """Return a world in which half of the items are taken by half of the users, mostly."""
    drawn = np.random.default_rng(3)
    user, item = drawn.integers(users, size=rows), drawn.integers(items, size=rows)
    chance = np.where((user % 2 == 0) & (item % 2 == 0), 0.8, 0.1)
    labels = (drawn.random(rows) < chance).astype(np.float32)[:, None]
    ts = np.arange(rows) * 60_000
    none = Interactions(*columns([], [], [], []))
    position = np.ones(rows, np.int64)
    kind = np.arange(items) % 2
    key = np.arange(len(user), dtype=np.uint64)
    return Shown(
        *(user, item, ts, position, position, labels, 1_000, none, kind, kind, key),
        propensity=np.ones(rows),
        policy=np.zeros(rows, np.int64),
        policies=("test",),
    )


@pytest.mark.parametrize("name", ["logistic", "lightgbm", "network"])
def test_models_find_who_takes_what_beyond_the_item(name: str) -> None:
    found = judge_clicks(many(), ("click",), (name,), TimeOptions(0.8), seed=0)["click"]
    assert found["rows"] == 600
    assert list(found["user_auc"]) == [name, "item-prior"]
    # The item alone tells .45 from .1, item and user .8 from .1.
    assert found["auc"][name]["value"] > 0.8
    assert found["auc"]["difference"]["low"] > 0.05
    assert found["log_loss"][name] < found["log_loss"]["item-prior"]
    assert found["ece"][name] < {"lightgbm": 0.12}.get(name, 0.06)  # trees: 2,400 rows


class Summed:
    """Predicts the sum of two of three features."""

    def fit(self, names: tuple[str, ...], features: np.ndarray, labels: np.ndarray) -> None:
        """Learn nothing."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the sum; the first weighs most."""
        return 4.0 * features[:, 0] + features[:, 1]


def test_importance_is_what_auc_falls_by_when_a_feature_is_shuffled() -> None:
    values = np.random.default_rng(0).integers(0, 2, (2_000, 3)).astype(np.float32)
    labels = values[:, 0]
    found = importance(Summed(), ("strong", "weak", "idle"), values, labels, seed=1)
    assert next(iter(found)) == "strong"
    assert found["strong"] == pytest.approx(0.5, abs=0.05)  # nothing is left but chance
    assert found["idle"] == 0.0
    assert found["weak"] == pytest.approx(0.0, abs=0.01)
    assert found == importance(Summed(), ("strong", "weak", "idle"), values, labels, seed=1)


def test_models_learn_from_the_selected_features_alone() -> None:
    def judged(*select: str) -> dict[str, Any]:
        models = ("logistic", "item-prior")
        return judge_clicks(many(), ("click",), models, TimeOptions(0.8), 0, select, explain=True)[
            "click"
        ]

    chosen = judged("item rate", "user rate")
    assert chosen["importance"]["model"] == "logistic"
    assert set(chosen["importance"]["auc_drop"]) == {"item rate", "user rate"}
    assert chosen["auc"]["logistic"] != judged()["auc"]["logistic"]
    assert chosen["auc"]["item-prior"] == judged("position")["auc"]["item-prior"]
    with pytest.raises(ConfigError, match="did you mean"):
        judged("item rat")


@pytest.mark.parametrize("name", ["logistic", "network"])
def test_features_are_scaled_by_learned_rows_alone(name: str) -> None:
    shown = many(100)
    learned = np.arange(100) < 80
    table = click_table(shown, 0, learned)
    other = table.values.copy()
    other[-1] = 1_000.0  # a later row that would move any mean
    before, after = (
        fit(name, table._replace(values=values), shown.labels[:, 0], learned, 0).predict(
            values[~learned]
        )
        for values in (table.values, other)
    )
    assert before[:-1].tolist() == after[:-1].tolist()
    assert before[-1] != after[-1]


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_models_repeat_themselves(name: str) -> None:
    first, second = (
        judge_clicks(many(400), ("click",), (name,), TimeOptions(0.8), 0) for _ in range(2)
    )
    assert first == second


def test_the_item_rate_is_the_feature() -> None:
    model = ItemRate()
    model.fit(("position", "item rate"), np.zeros((1, 2), np.float32), np.zeros(1, np.float32))
    assert model.predict(np.array([[1, 0], [2, log(3)]], np.float32)) == pytest.approx([0.5, 0.75])


def test_rare_items_are_judged_on_their_own() -> None:
    found = judge_clicks(many(1_000, items=500), ("click",), ("item-prior",), TimeOptions(0.5), 0)[
        "click"
    ]
    assert found["rare"]["rows"] == found["rows"] == 500  # each shown about twice
    assert found["rare"]["auc"]["item-prior"] == pytest.approx(found["auc"]["item-prior"]["value"])


# what is read, and bad input


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("shop")
    with open_log(f"sqlite:///{folder}/log.db") as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 300)
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    return load_config(None, (*SMALL, *places), environ={})


def test_exposures_of_a_log_are_read_with_their_outcomes(config: RunConfig) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
    shown = read_shown(logged.tables, logged.window, config)
    assert 1_150 < len(shown) <= 1_200  # 300 of four each, less what was drawn twice
    assert shown.labels.sum(axis=0).tolist() == [0, 0, 300]  # clicks, carts, purchases
    assert (np.diff(shown.ts) >= 0).all()
    assert len(shown.done.user) == 300
    taken = shown.labels[:, 2] > 0
    names = np.array([str(name) for name in logged.items["item_id"].to_pylist()])
    kind = np.array([int(name[1:]) // PER_KIND for name in names[shown.item[taken]]])
    for user in range(40):  # people buy their kind
        assert len(set(kind[shown.user[taken] == user].tolist())) == 1


def test_the_click_head_is_judged_beside_the_others(config: RunConfig) -> None:
    models = ("popularity", "item-prior", "logistic", CLICK_HEAD)
    found = evaluate(config, EvaluateOptions(models=models, importance=True))["clicks"]["purchase"]
    assert list(found["auc"]) == [CLICK_HEAD, "item-prior", "logistic", "difference"]
    assert found["auc"][CLICK_HEAD]["value"] > 0.5
    assert list(found["above"]) == ["logistic"]
    assert found["calibration"][CLICK_HEAD]["rows"]
    assert found["importance"]["model"] == CLICK_HEAD
    drops = found["importance"]["auc_drop"]
    assert set(drops) == set(config.model.click_numbers)
    assert list(drops.values()) == sorted(drops.values(), reverse=True)
    assert max(drops.values()) > 0


def test_of_several_seeds_the_means_are_shown(config: RunConfig) -> None:
    def area(*seeds: int) -> float:
        options = EvaluateOptions(models=("popularity", CLICK_HEAD), seeds=seeds)
        found: float = evaluate(config, options)["clicks"]["purchase"]["auc"][CLICK_HEAD]["value"]
        return found

    first, second = area(0), area(1)
    assert first != second
    assert area(0, 1) == pytest.approx((first + second) / 2)


def test_the_mean_of_several_heads_is_one_that_is_judged(config: RunConfig) -> None:
    models = ("popularity", "click-head-average", "logistic", CLICK_HEAD)
    with open_log(config.log) as log:
        logged = read_log(log, config)
        shown = read_shown(logged.tables, logged.window, config)
        begin_ms, said = TimeOptions().begin_ms(shown.ts), []
        for seed in (0, 1):
            own = replace(config, learner=replace(config.learner, seed=seed))
            said += [head.whole for head in streamed(log, own, shown, begin_ms)]
    asked = shown.ts >= begin_ms
    found = evaluate(config, EvaluateOptions(models=models, seeds=(0, 1)))["clicks"]["purchase"]
    names = ["click-head-average", "item-prior", CLICK_HEAD, "logistic", "difference"]
    assert list(found["auc"]) == names
    mean = ((said[0] + said[1]) / 2)[asked, 2]
    area = auc(shown.labels[asked, 2], mean)
    assert found["auc"]["click-head-average"]["value"] == pytest.approx(area)
    assert list(found["above"]) == [CLICK_HEAD, "logistic"]
    both = EvaluateOptions(
        models=("popularity", "click-head-average", CLICK_HEAD), seeds=(0, 1), importance=True
    )
    told = evaluate(config, both)["clicks"]["purchase"]["importance"]
    assert told["model"] == CLICK_HEAD  # of a mean nothing is shuffled
    with pytest.raises(ConfigError, match="a mean over seeds; name two or more"):
        EvaluateOptions(models=("click-head-average",), seeds=(0,))


@pytest.mark.parametrize("passes", [1, 2])
def test_the_click_head_says_nothing_of_what_it_learned(config: RunConfig, passes: int) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
        shown = read_shown(logged.tables, logged.window, config)
        begin_ms = int(np.quantile(shown.ts, 0.8))
        (head,) = streamed(log, config, shown, begin_ms, passes)
        said = head.whole
        with pytest.raises(DataError, match="no clicks to learn before"):
            streamed(log, config, shown, int(shown.ts[0]), passes)
    asked = shown.ts >= begin_ms
    assert np.isnan(said[~asked]).all()
    assert ((said[asked] > 0) & (said[asked] < 1)).all()


def test_a_log_without_exposures_is_named(config: RunConfig) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
    tables = {**logged.tables, "exposures": logged.tables["exposures"].slice(0, 0)}
    with pytest.raises(DataError, match="no exposures; log what is shown, or leave"):
        read_shown(tables, logged.window, config)


def test_one_class_only_is_named() -> None:
    shown = replace(many(100), labels=np.zeros((100, 1), np.float32))
    with pytest.raises(DataError, match=r"none of \['click'\] happened to some and not to others"):
        judge_clicks(shown, ("click",), ("item-prior",), TimeOptions(0.8), 0)


def test_an_outcome_that_was_never_seen_in_learning_is_left_out() -> None:
    shown = many(400)
    late = (np.arange(400) >= 350).astype(np.float32)[:, None]  # after the split at 320
    shown = replace(shown, labels=np.hstack([shown.labels, late]))
    found = judge_clicks(shown, ("click", "cart"), ("item-prior",), TimeOptions(0.8), 0)
    assert list(found) == ["click"]
    alone = replace(shown, labels=late)
    with pytest.raises(DataError, match=r"none of \['cart'\] happened to some and not to others"):
        judge_clicks(alone, ("cart",), ("item-prior",), TimeOptions(0.8), 0)


@pytest.mark.parametrize(("name", "package"), [("logistic", "sklearn"), ("lightgbm", "lightgbm")])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install .ray-rec\[evaluation\]"):
        CLICK_MODELS[name](0)
