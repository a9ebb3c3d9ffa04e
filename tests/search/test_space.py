"""What may vary: read from texts and files, refused where it could never be."""

from pathlib import Path

import pytest

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.search.space import Dimension, overrides, read_space

CONFIG = RunConfig()


def test_each_kind_is_read() -> None:
    texts = (
        "learner.lr=loguniform:1e-4:1e-2",
        "model.dropout=uniform:0:0.5",
        "model.blocks=int:1:3",
        "learner.optimizer=choice:adam, sgd",
    )
    assert read_space(texts, None, CONFIG) == [
        Dimension("learner.lr", "loguniform", (1e-4, 1e-2)),
        Dimension("model.dropout", "uniform", (0.0, 0.5)),
        Dimension("model.blocks", "int", (1, 3)),
        Dimension("learner.optimizer", "choice", ("adam", "sgd")),
    ]


def test_a_file_gives_dimensions_and_the_command_line_replaces_them(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('"model.blocks" = "int:1:2"\n[learner]\nlr = "uniform:0.001:0.01"\n')
    space = read_space(["model.blocks=choice:1,3"], path, CONFIG)
    assert space == [
        Dimension("model.blocks", "choice", ("1", "3")),
        Dimension("learner.lr", "uniform", (0.001, 0.01)),
    ]


def test_a_value_that_needs_another_beside_it_is_left_to_the_trials() -> None:
    assert read_space(["model.heads=choice:2,3"], None, CONFIG)  # 64 is no multiple of 3


def test_values_become_changes_of_a_configuration() -> None:
    assert overrides({"learner.lr": 0.5, "learner.optimizer": "sgd"}) == [
        "learner.lr=0.5",
        "learner.optimizer=sgd",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write key=kind:values"),
        ("learner.lr", "write key=kind:values"),
        ("learner.lr=normal:0:1", "a kind out of uniform, loguniform, int, choice"),
        ("learner.lr=uniform:0", "takes two numbers, low:high"),
        ("learner.lr=uniform:0:1:2", "takes two numbers, low:high"),
        ("model.blocks=int:1:2.5", "takes two numbers, low:high"),
        ("learner.lr=uniform:1:0.1", "the first number must be the lower one"),
        ("learner.lr=loguniform:0:1", "must be the lower one above 0"),
        ("learner.rate=uniform:0.1:1", "unknown key 'learner.rate'"),
        ("model.blocks=uniform:1.5:2.5", "model.blocks: expected int, got float"),
        ("learner.lr=choice:-1,0", "learner.lr is -1.0; it must be above 0"),
        ("learner.optimizer=choice:", "learner.optimizer: invalid enum value"),
    ],
)
def test_what_could_never_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space([text], None, CONFIG)


def test_nothing_to_search_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to search; name what varies"):
        read_space([], None, CONFIG)
    with pytest.raises(ConfigError, match="cannot read the search space"):
        read_space([], tmp_path / "none.toml", CONFIG)
