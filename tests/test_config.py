"""Configuration: sources and their order, strictness, and messages that say what to do."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from ray_rec.config import RunConfig, build, load_config
from ray_rec.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1
    rate: float = 0.5
    days: tuple[float, ...] = (1.0,)
    name: str = ""
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    flag: bool = False


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_file_and_survive_a_round_trip() -> None:
    config = load_config(environ={})
    assert config.features == RunConfig().features
    assert build(RunConfig, msgspec.json.decode(msgspec.json.encode(config.to_dict()))) == config


def test_later_sources_win(tmp_path: Path) -> None:
    path = write(tmp_path, 'log = "sqlite:////file.db"\n[features]\nhistory_length = 20\n')
    config = load_config(path, environ={})
    assert config.log == "sqlite:////file.db"
    assert config.features.history_length == 20

    environ = {"RAY_REC_LOG": "sqlite:////env.db", "RAY_REC_REGISTRY": "s3://somewhere"}
    config = load_config(path, ["features.history_length=30"], environ)
    assert config.log == "sqlite:////env.db"
    assert config.registry == "s3://somewhere"
    assert config.features.history_length == 30
    assert load_config(path, ["log=sqlite:////set.db"], environ).log == "sqlite:////set.db"


def test_sections_in_sections_are_set_alike(tmp_path: Path) -> None:
    path = write(tmp_path, "[learner.sequences]\ncrop = 0.2\n")
    learner = load_config(path, ["learner.texts.word_dropout=0.1"], {}).learner
    assert (learner.sequences.crop, learner.texts.word_dropout) == (0.2, 0.1)
    with pytest.raises(ConfigError, match=r"did you mean 'learner\.sequences\.crop'"):
        load_config(path, ["learner.sequences.corp=0.2"], {})
    with pytest.raises(ConfigError, match=r"share of crop is 2"):
        load_config(path, ["learner.sequences.crop=2.0"], {})


def test_local_places_are_absolute_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(environ={})
    assert config.log == f"sqlite:///{tmp_path}/var/log.db"
    assert config.registry == f"{tmp_path}/var/registry"
    assert config.state_dir == f"{tmp_path}/var/state"

    places = ["log=kafka://h:9092", "registry=s3://bucket/models", "state_dir=/srv/state"]
    config = load_config(None, places, {})
    assert [config.log, config.registry, config.state_dir] == [
        place.partition("=")[2] for place in places
    ]


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[features]\nhistory_length = 20\n")
    assert load_config(environ={"RAY_REC_CONFIG": str(path)}).features.history_length == 20


def test_values_of_every_kind_are_built() -> None:
    tree = {"inner": {"size": 2, "rate": 1, "days": [1, 7.5], "limit": None}, "flag": True}
    assert build(Outer, tree) == Outer(Inner(2, 1.0, (1.0, 7.5), "", None), flag=True)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"inner": {"size": "2"}}, "inner.size: expected int, got str"),
        ({"inner": {"size": 2.5}}, "inner.size: expected int, got float"),
        ({"inner": {"size": True}}, "inner.size: expected int, got bool"),
        ({"inner": {"days": [1, "x"]}}, "inner.days[1]: expected float, got str"),
        ({"inner": 3}, "inner: expected object, got int"),
        ({"flag": 1}, "flag: expected bool, got int"),
        ({"inner": {"sise": 2}}, "unknown key 'inner.sise'; did you mean 'inner.size'?"),
        ({"zzz": 2}, "unknown key 'zzz'; there is: inner, flag"),
    ],
)
def test_wrong_trees_are_named(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(Outer, tree)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.history_lenght=3", "did you mean 'features.history_length'"),
        ("history_length=3", "did you mean 'features.history_length'"),
        ("featurs.history_length=3", "did you mean 'features'"),
        ("features.history_length.x=3", "features.history_length is a value, not a section"),
        ("features.history_length=many", "features.history_length: expected int, got str"),
        ("features.history_length=-1", "history_length"),
        ("features=3", "features: expected object, got int"),
        ("nonsense", "write section.key=value"),
        ("=3", "write section.key=value"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_config(overrides=[override], environ={})


def test_an_override_into_a_value_of_the_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "features = 3\n")
    with pytest.raises(ConfigError, match=r"'features' in .* is a value, not a section"):
        load_config(path, ["features.history_length=3"], environ={})


def test_text_needs_no_quotes_but_may_have_them() -> None:
    assert load_config(overrides=["registry=5"], environ={}).registry.endswith("/5")
    assert load_config(overrides=['registry="/a b"'], environ={}).registry == "/a b"
    assert load_config(overrides=["log=kafka://h:1,h:2"], environ={}).log == "kafka://h:1,h:2"


def test_files_that_are_none_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        load_config(tmp_path / "missing.toml", environ={})
    with pytest.raises(ConfigError, match=r"is not TOML"):
        load_config(write(tmp_path, "= 3"), environ={})
    with pytest.raises(ConfigError, match=r"unknown key 'model\.dims'; did you mean 'model\.dim'"):
        load_config(write(tmp_path, "[model]\ndims = 3\n"), environ={})


ANY_NUMBER = {"seed", "click_weight"}
"""Keys for which any number means something."""


def test_every_owner_checks_its_values_with_the_key_in_the_message() -> None:
    for section in dataclasses.fields(RunConfig):
        if not dataclasses.is_dataclass(section.type):
            continue
        for key in dataclasses.fields(section.type):
            if key.type in {int, float} and key.name not in ANY_NUMBER:
                with pytest.raises(ConfigError, match=key.name):
                    load_config(overrides=[f"{section.name}.{key.name}=-1000000"], environ={})
