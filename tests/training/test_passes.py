"""Several passes over the log: what is planned and kept, and that they are those of `study`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError, StateError
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.features.state import FeatureState
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.log.reading import read_decoded
from ray_rec.log.window import Passes, Window
from ray_rec.registry import Registry
from ray_rec.training.config import TrainingConfig
from ray_rec.training.epochs import study
from ray_rec.training.gathered import Gathered
from ray_rec.training.learner import Learner
from ray_rec.training.owner import StateOwner, WindowSide
from ray_rec.training.passes import onwards, repeated
from ray_rec.training.planner import LEARNED_TOPICS, Planner
from ray_rec.training.plans import PlanStore
from tests.features.builders import T0, Stream, event, item
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits

RAW_DIM = 40


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Three passes over 448 records in windows of about 150, of which a pass's window takes 300."""
    places = (f"log=sqlite:///{tmp_path}/log.db", f"state_dir={tmp_path}/state")
    sizes = ("training.passes=3", "training.max_window_records=300", "learner.dtype=float64")
    registry = f"registry={tmp_path}/registry"
    return load_config(None, (*SMALL, *places, *sizes, registry), environ={})


@pytest.fixture
def log(config: RunConfig) -> Iterator[EventLog]:
    with open_log(config.log) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        fill_visits(log, 200)
        yield log


def make_planner(log: EventLog, config: RunConfig, bounded: bool = True) -> Planner:
    end = {topic: log.latest(topic) for topic in LEARNED_TOPICS} if bounded else None
    return Planner(log, PlanStore(f"{config.state_dir}/plans"), config.training, end)


def told(planner: Planner, first: int = 0) -> list[Window]:
    out: list[Window] = []
    while (window := planner.decide(first + len(out))) is not None:
        out.append(window)
    return out


class Trained:
    """One worker without Ray: its learner, and what the owner of the state told."""

    def __init__(self, config: RunConfig, number: int = 0) -> None:
        self._config = config
        self.learner = Learner(config.model, config.learner)
        self.owner = StateOwner(config)
        assert self.owner.resume(number)

    def take(self, window: Window) -> tuple[pa.Table, WindowSide]:
        tables = {
            t: part.table for t, part in read_decoded(self._config.log, window.ranges).items()
        }
        rows, side = self.owner.apply(window, tables, []), self.owner.side(window.number)
        observe(self.learner, side.window.items)
        lesson = side.lesson
        if window.gathers:
            self.learner.count(lesson.gathered)
        else:
            stretch = lesson.stretch
            self.learner.learn(side.window, rows, lesson.num_steps, stretch=stretch)
        return rows, side


def observe(learner: Learner, items: pa.Table) -> None:
    """Let the text of an item be a vector drawn by its number."""
    numbers = [int(item_id[1:]) for item_id in items["item_id"].to_pylist()]
    drawn = [np.random.default_rng(number).normal(size=RAW_DIM) for number in numbers]
    learner.observe(items, np.array(drawn, np.float32).reshape(len(drawn), RAW_DIM))


def keys(rows: pa.Table) -> list[tuple[int, int, int]]:
    columns = (rows[name].to_pylist() for name in ("topic_code", "partition", "offset"))
    return sorted(zip(*columns, strict=True))


# what is planned


def test_passes_follow_when_the_log_is_gathered(log: EventLog, config: RunConfig) -> None:
    windows = told(make_planner(log, config))
    gathered = [window for window in windows if window.gathers]
    again = windows[len(gathered) :]
    count = len(gathered)
    assert count >= 3
    assert sum(window.num_records for window in gathered) == 448
    assert {window.publish for window in gathered} == {"none"}
    # 448 records in windows of at most 300: two a pass, three passes
    assert [(w.passes.at, w.passes.of, w.passes.number) for w in again if w.passes] == [
        (1, 6, 1), (2, 6, 1), (3, 6, 2), (4, 6, 2), (5, 6, 3), (6, 6, 3),
    ]  # fmt: skip
    assert all(window.num_records == 0 and window.repeats for window in again)
    for one, other in ((0, 1), (2, 3), (4, 5)):
        assert sorted(again[one].replay + again[other].replay) == list(range(count))
    assert again[-1].publish == "full"
    assert all(Window.from_json(window.to_json()) == window for window in windows)


def test_a_stopped_run_goes_on_with_its_passes_before_anything_new(
    log: EventLog, config: RunConfig
) -> None:
    plain = told(make_planner(log, replace(config, state_dir=f"{config.state_dir}/other")))
    planner = make_planner(log, config)
    first = next(window.number for window in plain if window.repeats)
    taken = [planner.decide(number) for number in range(first + 2)]
    assert taken[-1] is not None
    closing = planner.close(first + 2)
    if closing is not None:  # where the last window made no full version
        assert not closing.repeats
    fill_visits(log, 50, first=200)
    begin = first + 2 + (closing is not None)
    rest = told(make_planner(log, config, bounded=False), begin)  # a stream, as it happens
    assert [window.replay for window in rest[:4]] == [w.replay for w in plain[first + 2 :]]
    assert [window.passes for window in rest[4:]] == [None] * len(rest[4:])
    assert sum(window.num_records for window in rest) == 100


def test_a_later_run_goes_through_what_is_new_alone(log: EventLog, config: RunConfig) -> None:
    before = told(make_planner(log, config))
    assert told(make_planner(log, config), len(before)) == []
    fill_visits(log, 50, first=200)
    later = told(make_planner(log, config), len(before))
    assert [window.passes.first for window in later if window.passes] == [len(before)] * 4
    assert [window.replay for window in later] == [(), *[(len(before),)] * 3]


def test_once_and_a_stream_know_no_passes(log: EventLog, config: RunConfig) -> None:
    once = replace(config, training=replace(config.training, passes=1))
    windows = told(make_planner(log, once))
    assert {window.passes for window in windows} == {None}
    following = make_planner(log, replace(config, state_dir=f"{config.state_dir}/other"), False)
    first = following.decide(0)
    assert first is not None
    assert first.passes is None


def test_a_large_window_is_a_pass_of_its_own() -> None:
    """A window of 130 records, where 100 are the most, is not cut."""
    passes = onwards(Passes(times=2, first=4), 5, 100, lambda number: 130)
    assert passes == Passes(times=2, first=4, until=5, at=1, of=2)
    assert repeated(passes) == (4,)
    assert onwards(passes, 6, 100, lambda number: 0).is_over


def test_passes_that_end_early_are_over_for_whoever_goes_on(
    log: EventLog, config: RunConfig
) -> None:
    config = replace(config, training=replace(config.training, patience=1))
    planner, windows = make_planner(log, config), list[Window]()
    while sum(window.is_measured for window in windows) < 2:  # as many passes
        window = planner.decide(len(windows))
        assert window is not None
        windows.append(window)
    last = windows[-1]
    assert last.passes is not None
    assert [w.passes.at for w in windows if w.passes and w.is_measured] == [2, 4]
    assert {window.publish for window in windows} == {"none"}, "none before the best is known"
    ended = replace(last, passes=replace(last.passes, ended=True))
    assert Window.from_json(ended.to_json()) == ended
    planner.amend(ended)

    closing = planner.decide(last.number + 1)
    assert closing is not None
    assert (closing.publish, closing.repeats, closing.is_measured) == ("full", False, False)
    assert planner.decide(last.number + 2) is None
    fill_visits(log, 50, first=200)
    later = told(make_planner(log, config), last.number + 2)
    assert {window.passes.first for window in later if window.passes} == {last.number + 2}


def test_passes_that_are_all_measured_are_published_at_their_end(
    log: EventLog, config: RunConfig
) -> None:
    config = replace(config, training=replace(config.training, patience=3))
    windows = told(make_planner(log, config))
    assert [w.passes.at for w in windows if w.passes and w.is_measured] == [2, 4, 6]
    assert [window.publish for window in windows[:-1]] == ["none"] * (len(windows) - 1)
    assert windows[-1].publish == "full"


def test_patience_with_passes_needs_no_versions_that_are_kept() -> None:
    assert TrainingConfig(passes=40, patience=12).keep_versions == 10
    with pytest.raises(ConfigError, match=r"training\.patience is 12"):
        TrainingConfig(patience=12)


# what is learned


def test_one_large_window_is_learned_as_the_comparison_learns(
    log: EventLog, config: RunConfig
) -> None:
    training = replace(config.training, window_records=1_000, max_window_records=1_000)
    config = replace(config, training=training)
    windows = told(make_planner(log, config))
    assert [window.gathers for window in windows] == [True, False, False, False]
    trained = Trained(config)
    for window in windows:
        trained.take(window)

    state, alone = FeatureState(config.features), Learner(config.model, config.learner)
    tables = read_decoded(config.log, windows[0].ranges)
    made = state.apply(windows[0], {topic: part.table for topic, part in tables.items()})
    observe(alone, made.items)
    made = replace(made, number=1)  # the number of the first window that learns
    study(alone, made, config.features.half_lives_days, config.learner.rows_per_step, 3)
    for name, tensor in alone.state().items():
        assert torch.equal(trained.learner.state()[name].nan_to_num(), tensor.nan_to_num()), name


def test_a_pass_learns_every_row_once_and_never_one_of_held_out_users(
    log: EventLog, config: RunConfig
) -> None:
    trained, windows = Trained(config), told(make_planner(log, config))
    held_out: list[tuple[int, int, int]] = []
    passes: dict[int, list[tuple[int, int, int]]] = {0: [], 1: [], 2: [], 3: []}
    for window in windows:
        rows, side = trained.take(window)
        assert window.passes is not None
        passes[window.passes.number] += keys(rows)
        held_out += keys(side.lesson.held_out) if window.gathers else []
        if window.repeats:
            assert side.lesson.stretch is not None
            assert set(keys(side.lesson.held_out)) <= set(held_out)
            assert not any(rows["held_out"].to_pylist())
    assert passes[0] == []
    assert held_out
    assert sorted(passes[1]) == sorted(passes[2]) == sorted(passes[3])
    assert len(set(passes[1])) == len(passes[1]) > 100
    assert not set(passes[1]) & set(held_out)
    counts = trained.learner.tensors()["items.count"]
    assert int(counts.sum()) == 200 - sum(len(t) for t in held_targets(trained.owner, windows)), (
        "each event once, whatever the number of passes"
    )


def held_targets(owner: StateOwner, windows: list[Window]) -> list[list[int]]:
    sides = [owner.side(window.number) for window in windows if window.gathers]
    tables = [EXAMPLES_SCHEMA.empty_table(), *(side.lesson.held_out for side in sides)]
    targets: list[list[int]] = pa.concat_tables(tables)["target_item"].to_pylist()
    return targets


def test_passes_over_nothing_that_could_be_learned_are_empty(
    tmp_path: Path, config: RunConfig
) -> None:
    config = replace(config, log=f"sqlite:///{tmp_path}/items.db")
    with open_log(config.log) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        windows = told(make_planner(log, config))
    trained = Trained(config)
    assert [trained.take(window)[0].num_rows for window in windows] == [0, 0, 0, 0]
    assert trained.learner.steps == 0


def test_killed_in_the_third_pass_it_goes_on_to_the_same_weights(
    log: EventLog, config: RunConfig
) -> None:
    windows = told(make_planner(log, config))
    whole = Trained(config)
    at = len(windows) - 1
    for window in windows[:at]:
        _, side = whole.take(window)
    learner, state = whole.learner.state(), whole.owner.snapshot(at)
    assert state is not None
    registry = Registry(config.registry, create=True)
    registry.publish_snapshot(at, state.tables, side.offsets, state.base, [])
    whole.take(windows[at])

    other = Trained(config, at)
    other.learner.load(learner)
    assert windows[at].passes is not None
    assert windows[at].passes.number == 3
    again = make_planner(log, config).decide(at)
    assert again == windows[at]
    other.take(again)
    for name, tensor in whole.learner.state().items():
        assert torch.equal(other.learner.state()[name].nan_to_num(), tensor.nan_to_num()), name


def test_rows_are_kept_until_no_checkpoint_needs_them(log: EventLog, config: RunConfig) -> None:
    trained, windows = Trained(config), told(make_planner(log, config))
    for window in windows:
        trained.take(window)
    folder = Path(config.state_dir) / "examples"
    kept = sorted(path.name for path in folder.iterdir())
    parts = ("", ".held_out", ".popularity", ".promoted", ".taken")
    assert kept[:5] == [f"{0:012d}{part}.arrow" for part in parts]
    trained.owner.commit(len(windows), oldest=len(windows) - 1)
    assert sorted(path.name for path in folder.iterdir()) == kept
    trained.owner.commit(len(windows), oldest=len(windows))
    assert list(folder.iterdir()) == []
    late = replace(windows[-1], number=len(windows))
    with pytest.raises(StateError, match="window 0 is to be learned in a pass, but"):
        trained.owner.apply(late, {}, [])


def test_what_was_gathered_is_given_again_with_its_promotions(
    config: RunConfig, tmp_path: Path
) -> None:
    features = replace(config.features, promotions=("mailer",), held_out_share=0.3)
    stream = Stream(FeatureState(features))
    stream.window(item("tea", "Tea", promotion=[("mailer", 0.5)]), event("ann", "tea", T0))
    made = stream.window(
        item("tea", "Tea", T0 + 1, promotion=[("mailer", 1.0)]),
        *(event(f"u{n}", "tea", T0 + n) for n in range(9)),
    )
    gathered = Gathered(str(tmp_path / "examples"))
    gathered.put(made)
    again = gathered.get(made.number)
    for name in ("taken", "promoted"):
        assert getattr(again, name).to_pylist() == getattr(made, name).to_pylist() != []
    assert again.popularity.tolist() == made.popularity.tolist()
    assert again.popularity[0, :2] == pytest.approx([0.5, 0])
    assert again.at_ms == made.at_ms == T0
    assert again.examples.num_rows == made.examples.num_rows == 9
