"""What a trial is worth: the same model as an evaluation's, asked after each pass."""

from dataclasses import replace

import pytest

from ray_rec.config import changed, load_config
from ray_rec.errors import ConfigError
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.hybrid import Hybrid
from ray_rec.evaluation.rankers.models import Makings
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.search.objective import Objective, ObjectiveOptions
from ray_rec.search.space import Params
from tests.training.conftest import SMALL
from tests.training.shop import fill_items, fill_visits

OPTIONS = ObjectiveOptions(passes=2, repeats=True, test=0.2, validation=0.2)
FASTER = {"learner.lr": 0.01, "model.dropout": 0.1}


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Objective:
    folder = tmp_path_factory.mktemp("shop")
    with open_log(f"sqlite:///{folder}/log.db") as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 300)
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    return Objective.read(load_config(None, (*SMALL, *places), environ={}), OPTIONS)


def told(objective: Objective, params: Params) -> list[dict[str, float]]:
    curve: list[dict[str, float]] = []
    objective.judge(params, curve.append)
    return curve


def test_asking_between_passes_leaves_the_model_as_it_would_be(objective: Objective) -> None:
    curve = told(objective, FASTER)
    assert len(curve) == OPTIONS.passes
    config = changed(objective.config, ["learner.lr=0.01", "model.dropout=0.1"])
    makings = Makings(config, objective.items, OPTIONS.passes)
    alone = Hybrid(config, objective.items, makings.raw, OPTIONS.passes)
    judged = judge(objective.split, [alone], repeats=True)
    found = ranking(judged.ranks["hybrid"], judged.target_query, len(judged.user))
    assert curve[-1] == {"hr@10": found.hit.mean(), "ndcg@10": found.ndcg.mean()}
    assert told(objective, FASTER) == curve, "a trial may be repeated"


def test_a_model_without_passes_is_told_once(objective: Objective) -> None:
    popularity = replace(objective, options=replace(OPTIONS, model="popularity"))
    assert len(told(popularity, {})) == 1


def test_values_that_do_not_go_together_are_named(objective: Objective) -> None:
    with pytest.raises(ConfigError, match=r"model\.dim 16 must be a multiple of model\.heads"):
        told(objective, {"model.heads": "3"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "hybird"}, "did you mean 'hybrid'"),
        ({"passes": 0}, "passes is 0; it must be at least 1"),
        ({"max_queries": -1}, "max_queries is -1; it must be at least 0"),
    ],
)
def test_options_that_could_not_work_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ObjectiveOptions(**wrong)
