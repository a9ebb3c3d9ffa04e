"""Ways to go on learning, side by side on one small shop: what is equal, and what differs."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError
from ray_rec.evaluation.backtest import TOPICS, read_window
from ray_rec.evaluation.habits import Apprentice, Habit
from ray_rec.evaluation.prequential import MODEL, Options, Prequential
from ray_rec.evaluation.pupil import Pupil
from ray_rec.features.arrays import Float64
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.log.cut import cut
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits

BEGIN, WINDOWS = 3, 10
"""Windows that all have learned, and all there are: seven are learned, each in its way."""
HABITS = {
    "each": Habit(),
    "seven": Habit(every=7),
    "six": Habit(every=6),
    "never": Habit(every=0),
    "frozen": Habit(every=0, counts=False),
    "replay": Habit(replay=2),
    "elastic": Habit(elastic=20.0),
    "average": Habit(average=0.9),
    "anew": Habit(every=7, refresh=7),
    "anew-short": Habit(every=7, refresh=7, past=2),
}


@pytest.fixture(scope="module")
def begun() -> dict[str, torch.Tensor]:
    """What all had learned when they began."""
    return {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, begun: dict[str, torch.Tensor]) -> Prequential:
    folder = tmp_path_factory.mktemp("shop")
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    config = load_config(None, (*SMALL, *places), environ={})
    torch.set_num_threads(1)
    with open_log(config.log) as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 300)
        out = Prequential(config, Options(warmup_windows=BEGIN), rankers=())
        apprentices = _apprentices(config, out)
        out.beside.update(apprentices)
        counts = dict.fromkeys((*TOPICS, "dead"), 0)
        for window in cut(log, TOPICS, 60):
            if window.number == WINDOWS:
                break
            if window.number == BEGIN:
                begun |= out.model.state()
                for apprentice in apprentices.values():
                    apprentice.go_on(out.model)
            out.step(window, read_window(log, window, counts))
    return out


def _apprentices(config: RunConfig, run: Prequential) -> dict[str, Apprentice]:
    return {
        name: Apprentice(config, habit, run.encoder, run.store, 200)
        for name, habit in HABITS.items()
    }


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether all but what tells changes since a version is equal, bit for bit."""
    names = [name for name in one if name not in ("items.changed", "items.published_texts")]
    return all(torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in names)


def _ranks(pupil: Pupil) -> Float64:
    return pupil.ledger.ranked().ranks[MODEL]


def test_all_are_asked_the_same(run: Prequential) -> None:
    first, shown = run.model.ledger.ranked(), run.model.ledger.judged()
    assert len(first.user) > 30
    assert shown is not None
    for pupil in run.beside.values():
        ranked, judged = pupil.ledger.ranked(), pupil.ledger.judged()
        assert judged is not None
        for name in ("window", "user", "target_query", "seen"):
            assert np.array_equal(getattr(ranked, name), getattr(first, name))
        assert np.array_equal(judged[0], shown[0])
        assert np.array_equal(judged[1].labels, shown[1].labels)


def test_who_learns_each_window_is_the_model_itself(run: Prequential) -> None:
    assert _same(run.beside["each"].state(), run.model.state())
    assert np.array_equal(_ranks(run.beside["each"]), _ranks(run.model))


def test_windows_learned_together_teach_what_they_teach_alone_only_later(run: Prequential) -> None:
    seven = run.beside["seven"]
    assert _same(seven.state(), run.model.state())
    assert np.array_equal(_ranks(seven), _ranks(run.beside["never"]))
    assert not np.array_equal(_ranks(seven), _ranks(run.model))
    assert isinstance(seven, Apprentice)
    assert seven.updates == 1
    assert not _same(run.beside["six"].state(), run.model.state())  # the seventh waits


def test_who_never_learns_keeps_weights_and_item_vectors(
    run: Prequential, begun: dict[str, torch.Tensor]
) -> None:
    for name in ("never", "frozen"):
        assert _same(begun, run.beside[name].state())
    assert not np.array_equal(_ranks(run.beside["never"]), _ranks(run.beside["frozen"]))


def test_a_refresh_from_all_of_the_past_is_what_was_learned_all_along(run: Prequential) -> None:
    assert _same(run.beside["anew"].state(), run.model.state())
    short, seven = run.beside["anew-short"], run.beside["seven"]
    assert not _same(short.state(), run.model.state())
    assert isinstance(short, Apprentice)
    assert isinstance(seven, Apprentice)
    assert 0 < short.rows < seven.rows


def test_the_other_ways_learn_otherwise_from_the_same_windows(run: Prequential) -> None:
    each, replay = run.beside["each"], run.beside["replay"]
    assert isinstance(each, Apprentice)
    assert isinstance(replay, Apprentice)
    assert each.rows < replay.rows <= 1.5 * each.rows
    for name in ("replay", "elastic"):
        assert not _same(run.model.state(), run.beside[name].state())
    assert _same(run.model.state(), run.beside["average"].state())  # but for the average itself
    assert not np.array_equal(_ranks(run.beside["average"]), _ranks(run.model))


def test_a_habit_that_could_not_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="habit every is -1"):
        Habit(every=-1)
