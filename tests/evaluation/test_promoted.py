"""A shop in which people take what is promoted that day: who is told of it foresees it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ray_rec.config import RunConfig, changed, load_config
from ray_rec.errors import ConfigError
from ray_rec.evaluation.asking.logged import Logged, read_log
from ray_rec.evaluation.asking.questions import Interactions
from ray_rec.evaluation.asking.splits import global_time
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.hybrid import Hybrid
from ray_rec.evaluation.rankers.live import LiveCounts
from ray_rec.evaluation.rankers.models import Makings
from ray_rec.events.schema import EVENTS, ITEMS, Event, Item
from ray_rec.features.config import DAY_MS
from ray_rec.log.base import create_standard_topics, open_log
from tests.serving.shop import records
from tests.training.conftest import SMALL

DAYS, ITEMS_IN_SHOP, USERS = 40, 30, 12
START_MS = 1_700_000_000_000
TOLD = ("features.promotions=['mailer']", "model.num_promotions=1")


def day(number: int) -> int:
    return START_MS + number * DAY_MS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Each day one item is in the mailer and the one before no more; most people take it.

    A day is two windows' promotions, then its purchases: so these are learned with the former told.
    """
    folder = tmp_path_factory.mktemp("shop")
    random, listed, taken = np.random.default_rng(0), [], []
    of_day = random.integers(0, ITEMS_IN_SHOP, DAYS)
    for item in range(ITEMS_IN_SHOP):
        listed.append(Item(item_id=f"i{item}", title=f"thing {item}", ts=START_MS - DAY_MS))
    for number, item in enumerate(of_day.tolist()):
        for each, share in ((of_day[number - 1], 0.0), (item, 1.0)):
            told = {"mailer": share}
            again = Item(
                item_id=f"i{each}", title=f"thing {each}", ts=day(number) - 1, promotion=told
            )
            listed.append(again)
        for user in range(USERS):
            chosen = item if random.random() < 0.8 else random.integers(ITEMS_IN_SHOP)
            ts = day(number) + 3_600_000 * (user + 1)
            name = {"event_id": f"e{number}-{user}", "user_id": f"u{user}"}
            taken.append(Event(**name, item_id=f"i{chosen}", event_type="purchase", ts=ts))
    with open_log(f"sqlite:///{folder}/log.db") as log:
        create_standard_topics(log, 1)
        log.append(ITEMS, records(ITEMS, listed))
        log.append(EVENTS, records(EVENTS, taken))
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    small = ("training.window_records=2", "features.half_lives_days=[3]", "model.num_horizons=1")
    quick = ("learner.lr=0.02", "learner.rows_per_step=2")
    return load_config(None, (*SMALL, *places, *small, *quick, *TOLD), environ={})


@pytest.fixture(scope="module")
def logged(config: RunConfig) -> Iterator[Logged]:
    with open_log(config.log) as log:
        return read_log(log, config)


def test_who_is_told_of_promotions_foresees_what_is_taken(
    config: RunConfig, logged: Logged
) -> None:
    split, raw = global_time(logged.events), Makings(config, logged.items, 1).raw
    plain = changed(config, ("features.promotions=[]", "model.num_promotions=0"))
    told = Hybrid(config, logged.items, raw, promoted=logged.promoted)
    unknown = Hybrid(config, logged.items, raw)  # of nothing promoted it hears
    untold = Hybrid(plain, logged.items, raw)
    first = [
        (judge(split, [ranker], repeats=True).ranks["hybrid"] <= 1).mean()
        for ranker in (told, unknown, untold)
    ]
    assert first[0] > 0.6
    assert max(first[1:]) < first[0] - 0.2


def test_several_passes_know_what_was_promoted_at_each_time(
    config: RunConfig, logged: Logged
) -> None:
    """All of this log at once, where everybody does the same, is learned by heart: ask weights."""
    training, raw = global_time(logged.events).training(), Makings(config, logged.items, 1).raw
    weights = []
    for promoted in (logged.promoted, None):
        model = Hybrid(config, logged.items, raw, 20, promoted=promoted)
        model.observe(training)
        weights.append(model.learned()["model.recall.popularity"].tolist())
    assert weights[0][0] > 0.5 > 0.0 > weights[0][1]  # what is promoted now, but not as a rule
    assert weights[1][:2] == [0.0, 0.0]


def test_what_is_promoted_is_known_once_its_time_has_come(
    config: RunConfig, logged: Logged
) -> None:
    queries = global_time(logged.events).queries()
    live = LiveCounts(config.features, logged.promoted)
    nothing = Interactions(*(np.zeros(0, np.int64) for _ in range(4)))
    live.follow(replace(queries, fresh=nothing))
    listed = [row for row in logged.promoted.to_pylist() if row["shares"] == [1.0]]
    for row in (listed[5], listed[3]):  # backwards in time as well
        before, after = (live.before(row["ts"] + late)[0][row["item"], 0] for late in (0, 1))
        assert (before, after) == (0.0, 1.0)


def test_promotions_of_another_number_are_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"num_promotions is 1, but features.promotions are 0"):
        changed(config, ("features.promotions=[]",))
    with pytest.raises(ConfigError, match=r"num_horizons is 2, but .*half_lives_days are 1"):
        changed(config, ("model.num_horizons=2",))
