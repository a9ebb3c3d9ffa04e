"""The configuration of a run: TOML, the environment and `--set` into each room's own dataclass.

Later sources win: defaults, the file, the environment, overrides. A key that nobody owns is an
error that names the nearest one, so nothing is set in vain.
"""

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ray_rec.errors import ConfigError
from ray_rec.features.config import FeatureConfig
from ray_rec.model.config import EncoderConfig, ModelConfig
from ray_rec.serving.config import ServingConfig
from ray_rec.training.config import LearnerConfig, TrainingConfig

ENV_PREFIX = "RAY_REC_"
ENV_FILE = "RAY_REC_CONFIG"

T = TypeVar("T")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run may be told; the sections belong to the rooms that read them.

    Attributes:
        log: URL of the event log, `sqlite:///path` or `kafka://host:port`.
        registry: URL or folder of the model registry (any fsspec URL).
        state_dir: where plans, checkpoints and cached text vectors are kept (any fsspec URL).
        partitions: of the topics keyed by user and of items, where they are still to be created.
    """

    log: str = "sqlite:///var/log.db"
    registry: str = "var/registry"
    state_dir: str = "var/state"
    partitions: int = 2
    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)

    def __post_init__(self) -> None:
        """Reject what could not be created, and a model of other features."""
        if self.partitions < 1:
            raise ConfigError(f"partitions is {self.partitions}; it must be at least 1")
        horizons, half_lives = self.model.num_horizons, self.features.half_lives_days
        if horizons != len(half_lives):
            raise ConfigError(
                f"model.num_horizons is {horizons}, but features.half_lives_days are "
                f"{len(half_lives)}: give as many"
            )
        channels = self.features.promotions
        if self.model.num_promotions != len(channels):
            raise ConfigError(
                f"model.num_promotions is {self.model.num_promotions}, but features.promotions are "
                f"{len(channels)}: give as many"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as JSON types, as manifests and results keep it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> RunConfig:
    """Read the configuration of a run.

    Local paths become absolute, from the working folder of the caller: Ray's workers have others.

    Args:
        path: a TOML file; None takes `RAY_REC_CONFIG`, or no file at all.
        overrides: `section.key=value`, the value as TOML writes it; text needs no quotes.
        environ: read for RAY_REC_CONFIG, RAY_REC_LOG, RAY_REC_REGISTRY, RAY_REC_STATE_DIR.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value is of the wrong type or
            cannot work.
    """
    path = path or environ.get(ENV_FILE) or None
    tree = _read_toml(Path(path)) if path is not None else {}
    for part in fields(RunConfig):
        value = environ.get(ENV_PREFIX + part.name.upper())
        if value and part.type is str:
            tree[part.name] = value
    for override in overrides:
        _apply(tree, override)
    return _anchored(build(RunConfig, tree), Path.cwd())


def changed(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return a configuration with changes, each as in `load_config`.

    >>> changed(RunConfig(), ["model.blocks=3"]).model.blocks
    3
    """
    tree = config.to_dict()
    for override in overrides:
        _apply(tree, override)
    return build(RunConfig, tree)


def build(kind: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """Make a configuration dataclass from plain values, strictly: nothing unknown, nothing coerced.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Trunk:
    ...     blocks: int = 2
    >>> build(Trunk, {"blocks": 3})
    Trunk(blocks=3)
    >>> build(Trunk, {"block": 3})
    Traceback (most recent call last):
    ray_rec.errors.ConfigError: unknown key 'block'; did you mean 'blocks'?
    """
    _reject_unknown(kind, tree, where)
    try:
        return msgspec.convert(tree, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), where)) from error


def _anchored(config: RunConfig, folder: Path) -> RunConfig:
    scheme, sqlite, path = config.log.partition("sqlite:///")
    local = bool(sqlite and path and not scheme)
    return replace(
        config,
        log=sqlite + str(folder / path) if local else config.log,
        registry=_anchor(config.registry, folder),
        state_dir=_anchor(config.state_dir, folder),
    )


def _anchor(url: str, folder: Path) -> str:
    return url if "://" in url else str(folder / url)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}; give an existing TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the tree."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"cannot use {override!r}; write section.key=value, as in model.dim=64")
    kind = _kind_of(keys)
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key!r} in {override!r} is a value, not a section")
    node[keys[-1]] = _value(text.strip(), kind)


def _kind_of(keys: Sequence[str]) -> Any:
    """Return the type declared for a dotted key; ConfigError when there is none."""
    kind: Any = RunConfig
    for depth, key in enumerate(keys):
        if not is_dataclass(kind):
            raise ConfigError(f"{'.'.join(keys[:depth])} is a value, not a section")
        _reject_unknown(typing.cast(type, kind), {key: None}, ".".join(keys[:depth]))
        kind = typing.get_type_hints(kind)[key]
    return kind


def _value(text: str, kind: Any) -> Any:
    """Read an override's value as TOML; what is declared as text or is no TOML stays text."""
    quoted = text[:1] in {'"', "'"}
    if kind is str and not quoted:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _reject_unknown(kind: type, tree: Mapping[str, Any], where: str) -> None:
    types = typing.get_type_hints(kind)
    known = [part.name for part in fields(kind)]
    for key, value in tree.items():
        dotted = f"{where}.{key}" if where else key
        if key not in known:
            raise ConfigError(f"unknown key {dotted!r}; {_nearest(key, known, where)}")
        if is_dataclass(types[key]) and isinstance(value, Mapping):
            _reject_unknown(typing.cast(type, types[key]), value, dotted)


def _nearest(key: str, known: Sequence[str], where: str) -> str:
    """Say which key was probably meant: one of the same section, or the same name in another."""
    prefix = f"{where}." if where else ""
    near = [prefix + name for name in difflib.get_close_matches(key, known, n=1)]
    elsewhere = [name for name in _leaves(RunConfig) if name.rpartition(".")[2] == key]
    for name in near + elsewhere:
        return f"did you mean {name!r}?"
    return f"there is: {', '.join(prefix + name for name in known)}"


def _leaves(kind: type, prefix: str = "") -> Iterator[str]:
    types = typing.get_type_hints(kind)
    for part in fields(kind):
        if is_dataclass(types[part.name]):
            yield from _leaves(typing.cast(type, types[part.name]), f"{prefix}{part.name}.")
        else:
            yield prefix + part.name


def _explain(message: str, where: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.model.dim`" into our order of words."""
    found = re.fullmatch(r"(?P<what>.*) - at `\$\.?(?P<key>.*)`", message, re.DOTALL)
    if found is None:
        return f"{where or 'the configuration'}: {message}"
    key = ".".join(part for part in (where, found["key"]) if part)
    what = found["what"].replace("`", "")
    return f"{key}: {what[:1].lower()}{what[1:]}"
