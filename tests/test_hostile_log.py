"""What reads and writes the log, on one that fails, is slow, repeats and mixes partitions."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ray_rec.config import RunConfig
from ray_rec.errors import LogError
from ray_rec.events.decode import decode
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS
from ray_rec.features.state import FeatureState
from ray_rec.log import reading
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.window import Window
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.engine import Engine
from ray_rec.serving.exposures import ExposureWriter
from ray_rec.serving.follower import TOPICS, LogFollower
from ray_rec.serving.metrics import Metrics
from ray_rec.training import owner as owner_module
from ray_rec.training.owner import StateOwner
from ray_rec.training.planner import LEARNED_TOPICS, Planner
from ray_rec.training.plans import PlanStore
from tests.chaos.ledger import buried
from tests.chaos.shop import configure, fill
from tests.hostile import HostileLog, until_done
from tests.serving.test_exposures import exposure, written
from tests.training.shop import fill_items, fill_visits
from tests.waiting import until

SEEDS = range(5)


@pytest.fixture
def config(sqlite_url: str, tmp_path: Path) -> RunConfig:
    """A filled log of some ten windows."""
    fill(sqlite_url, 10)
    return configure(sqlite_url, tmp_path / "run")


@pytest.fixture
def log(config: RunConfig) -> Iterator[EventLog]:
    with open_log(config.log) as log:
        yield log


def plans_of(log: EventLog, config: RunConfig, folder: Path) -> list[Window]:
    """Decide every window up to the end; while the log fails none is decided."""
    end = {topic: until_done(lambda t=topic: log.latest(t), LogError) for topic in LEARNED_TOPICS}
    planner = Planner(log, PlanStore(str(folder)), config.training, end)
    plans: list[Window] = []
    while True:
        window = planner.decide(len(plans))
        if window is not None:
            plans.append(window)
        elif planner.exhausted():
            return plans


def whole(log: EventLog) -> Window:
    """Return the whole log as one window."""
    ends = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
    return Window(0, {t: {p: (0, end) for p, end in parts.items()} for t, parts in ends.items()})


def decoded(log: EventLog, window: Window) -> tuple[dict[str, pa.Table], list[pa.Table]]:
    """Read a window as the owner gets it: tables by topic, and what is unusable."""
    parts = {
        topic: until_done(lambda t=topic, s=spans: list(log.read(t, s)), LogError)
        for topic, spans in window.ranges.items()
    }
    made = {topic: decode(topic, pa.concat_tables(raw)) for topic, raw in parts.items() if raw}
    return {topic: part.table for topic, part in made.items()}, [d.dead for d in made.values()]


@pytest.mark.parametrize("seed", SEEDS)
def test_plans_hold_each_record_once_though_the_log_fails(
    seed: int, log: EventLog, config: RunConfig, tmp_path: Path
) -> None:
    hostile = HostileLog(log, seed, failing=0.05, slow_s=0.0002)  # dozens of questions a window
    plans = plans_of(hostile, config, tmp_path / "plans")
    assert hostile.failures > 0
    assert [window.number for window in plans] == list(range(len(plans)))
    at = {topic: dict.fromkeys(log.latest(topic), 0) for topic in LEARNED_TOPICS}
    for window in plans:
        assert window.ranges == {
            topic: {p: (at[topic][p], end) for p, end in parts.items()}
            for topic, parts in window.ends().items()
        }
        at = window.ends()
    assert at == {topic: log.latest(topic) for topic in LEARNED_TOPICS}


@pytest.mark.parametrize("seed", SEEDS)
def test_partitions_may_come_in_any_order(seed: int, log: EventLog, config: RunConfig) -> None:
    window = whole(log)
    straight, mixed = FeatureState(config.features), FeatureState(config.features)
    tables, _ = decoded(log, window)
    others, _ = decoded(HostileLog(log, seed), window)
    assert any(not others[topic].equals(table) for topic, table in tables.items())
    first = straight.apply(window, tables)
    second = mixed.apply(window, others)
    assert first.examples.equals(second.examples)
    assert first.counts == second.counts
    assert straight.snapshot() == mixed.snapshot()


def test_a_failing_read_gives_no_half_of_a_window(
    log: EventLog, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = HostileLog(log, seed=1, failing=0.2)
    monkeypatch.setattr(reading, "open_log", lambda url: hostile)
    spans = whole(log).ranges[EVENTS]
    outcomes: Counter[int] = Counter()
    for _ in range(50):
        try:
            part = reading.read_decoded(config.log, {EVENTS: spans})[EVENTS]
            outcomes[part.table.num_rows + part.dead.num_rows] += 1
        except LogError:
            outcomes[-1] += 1
    assert outcomes.keys() == {-1, sum(log.latest(EVENTS).values())}


@pytest.mark.parametrize("seed", SEEDS)
def test_records_that_were_written_twice_are_known_once(
    seed: int, config: RunConfig, tmp_path: Path
) -> None:
    states = []
    for name, share in (("once", 0.0), ("twice", 0.4)):
        with open_log(f"sqlite:///{tmp_path}/{name}.db") as log:
            create_standard_topics(log, partitions=2)
            hostile = HostileLog(log, seed, failing=0.0, repeating=share)
            fill_items(hostile)
            fill_visits(hostile, 100)
            state = FeatureState(config.features)
            made = state.apply(whole(log), decoded(log, whole(log))[0])
            repeated = sum(log.latest(EVENTS).values()) - 100
            assert made.counts["duplicates"] == repeated
            assert (repeated > 0) == (share > 0)
            states.append((made, state))
    (once, calm), (twice, state) = states
    assert state.histories.snapshot() == calm.histories.snapshot()
    assert learnable(twice.examples) == learnable(once.examples)


def learnable(rows: pa.Table) -> list[object]:
    """Return what rows teach, without where in the log they came from."""
    kept = [name for name in rows.column_names if name not in ("offset", "shown_propensity")]
    return sorted(map(str, rows.select(kept).to_pylist()))


def test_dead_letters_are_written_though_the_log_fails(
    log: EventLog, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = whole(log)
    tables, dead = decoded(log, window)
    hostile = HostileLog(log, seed=2, failing=0.9)
    monkeypatch.setattr(owner_module, "open_log", lambda url: hostile)
    owner = StateOwner(config)
    assert owner.resume(0)
    until_done(lambda: owner.apply(window, tables, dead), LogError)
    assert hostile.failures > 0
    again = owner.apply(window, tables, dead)
    straight = FeatureState(config.features).apply(window, tables).examples
    assert again.num_rows == straight.filter(pa.compute.invert(straight["held_out"])).num_rows
    expected = {
        (row["topic"], row["partition"], row["offset"]) for d in dead for row in d.to_pylist()
    }
    assert len(expected) == 6
    assert buried(config) == expected


def test_a_follower_gets_level_through_everything(log: EventLog, config: RunConfig) -> None:
    hostile = HostileLog(log, seed=3, failing=0.3)
    engine = Engine(config.features, ServingConfig())
    follower = LogFollower(hostile, engine, {}, Metrics(), poll_s=0.001, retry_s=0.001)
    follower.start()
    fill_visits(log, 50, first=1000)
    ends = {topic: log.latest(topic) for topic in TOPICS}
    until(lambda: follower.positions() == ends)
    follower.stop()
    assert hostile.failures > 0
    assert follower.failure is None

    calm = Engine(config.features, ServingConfig())
    tables, _ = decoded(log, whole(log))
    calm.update({topic: tables[topic] for topic in TOPICS if topic in tables})
    for user in range(40):
        known = engine.profiles.history(f"u{user}", 50)
        assert known == calm.profiles.history(f"u{user}", 50), user
    assert sorted(engine.catalogue.item_id) == sorted(calm.catalogue.item_id)


def test_each_exposure_is_written_at_least_once(tmp_path: Path) -> None:
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        create_standard_topics(log, partitions=2)
        hostile = HostileLog(log, seed=4, failing=0.5)
        writer = ExposureWriter(hostile, capacity=1000, retry_s=0.001)
        rng = random.Random(4)
        for number in range(200):
            assert writer.put(exposure(number))
            if rng.random() < 0.1:
                until(lambda: not writer.num_waiting)
        assert writer.close() == 0
        assert hostile.failures > 0
        assert set(written(log)) == {f"r{number}" for number in range(200)}
        assert sum(log.latest(EXPOSURES).values()) > 200
        assert sum(log.latest(ITEMS).values()) == 0
