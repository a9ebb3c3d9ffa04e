"""The choices that are set beside the demo's model are choices that it knows."""

import tomllib

from benchmarks import choices
from benchmarks._results import ROOT


def test_each_choice_is_another_model_or_another_way_to_learn() -> None:
    plan = tomllib.loads((ROOT / "benchmarks" / "choices.toml").read_text())
    demo = choices._config(0)
    made = [choices._config(0, changes) for changes in plan["choices"].values()]
    told = [(config.model, config.learner) for config in (demo, *made)]
    assert all(told.count(each) == 1 for each in told)
    assert all(
        (config.features, config.training) == (demo.features, demo.training) for config in made
    )
