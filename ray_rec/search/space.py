"""What may vary in a search: keys of the configuration, each with the values that it may take.

One text for a dimension, on the command line and in a TOML file:

    learner.lr=loguniform:1e-4:1e-2    between the two, evenly in the logarithm
    model.dropout=uniform:0:0.5        between the two
    model.dim=int:16:128               whole numbers, both ends included
    learner.optimizer=choice:adam,sgd  one of these
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from ray_rec.config import RunConfig, changed
from ray_rec.errors import ConfigError

Kind = Literal["uniform", "loguniform", "int", "choice"]
Value = float | int | str
Params = Mapping[str, Value]
"""The values of a trial, by key."""


@dataclass(frozen=True)
class Dimension:
    """One key and its values: two ends, or all there are in the words of the configuration."""

    key: str
    kind: Kind
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `key=kind:values`.

        >>> Dimension.parse("learner.lr=loguniform:1e-4:1e-2")
        Dimension(key='learner.lr', kind='loguniform', values=(0.0001, 0.01))
        >>> Dimension.parse("model.blocks=choice:1,2").values
        ('1', '2')

        Raises:
            ConfigError: it is something else.
        """
        key, _, rest = text.partition("=")
        kind, _, ends = rest.partition(":")
        match kind.strip():
            case "choice":
                return cls(key.strip(), "choice", tuple(v.strip() for v in ends.split(",")))
            case "uniform" | "loguniform" | "int" as known:
                return cls(key.strip(), known, _ends(text, known, ends))
        raise ConfigError(
            f"cannot use {text!r}; write key=kind:values with a kind out of "
            f"{', '.join(get_args(Kind))}, as in learner.lr=loguniform:1e-4:1e-2"
        )


def read_space(given: Sequence[str], file: Path | None, config: RunConfig) -> list[Dimension]:
    """Return the dimensions of a search; those given replace those of the file.

    Args:
        given: texts as above.
        file: TOML of such texts by key, as `"learner.lr" = "loguniform:1e-4:1e-2"`, or in sections.
        config: what the other keys are; some value of each dimension must fit them.

    Raises:
        ConfigError: the file cannot be read, a key or value cannot be, or nothing varies.
    """
    texts = _of_file(file) if file is not None else []
    space = {d.key: d for d in map(Dimension.parse, [*texts, *given])}
    if not space:
        raise ConfigError("nothing to search; name what varies, as --space model.blocks=choice:1,2")
    for dimension in space.values():
        _check(dimension, config)
    return list(space.values())


def overrides(params: Params) -> list[str]:
    """Return values as changes of a configuration."""
    return [f"{key}={value}" for key, value in params.items()]


def _check(dimension: Dimension, config: RunConfig) -> None:
    """Raise what is wrong with all values alike; one that needs others beside it may be right."""
    refusals = []
    for value in dimension.values:
        try:
            changed(config, overrides({dimension.key: value}))
        except ConfigError as error:
            refusals.append(error)
    if len(refusals) == len(dimension.values):
        raise refusals[0]


def _ends(text: str, kind: Kind, ends: str) -> tuple[Value, Value]:
    number = int if kind == "int" else float
    try:
        low, high = (number(end) for end in ends.split(":"))
    except ValueError:
        raise ConfigError(f"cannot use {text!r}; {kind} takes two numbers, low:high") from None
    if not low < high or (kind == "loguniform" and low <= 0):
        above = " above 0" if kind == "loguniform" else ""
        raise ConfigError(f"cannot use {text!r}; the first number must be the lower one{above}")
    return low, high


def _of_file(path: Path) -> list[str]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the search space {path}: {error}") from error
    return list(_leaves(tree))


def _leaves(tree: Mapping[str, object], prefix: str = "") -> list[str]:
    texts = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            texts += _leaves(value, f"{prefix}{key}.")
        else:
            texts.append(f"{prefix}{key}={value}")
    return texts
