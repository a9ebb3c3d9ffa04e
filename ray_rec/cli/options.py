"""Options that several commands share, and how a result is shown."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ray_rec.config import RunConfig

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="TOML file of the run (or RAY_REC_CONFIG).", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change one thing, as in [bold]model.dim=32[/]. Repeatable.",
        show_default=False,
    ),
]
Start = Annotated[str | None, typer.Option("--from", help="First record time, ISO 8601 or ms.")]
End = Annotated[str | None, typer.Option("--until", help="Record time to stop before.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


def settings(path: Path | None, overrides: list[str] | None) -> "RunConfig":
    """Read the configuration that a command was given."""
    from ray_rec.config import load_config

    return load_config(path, overrides or ())


def show(result: Any, as_json: bool) -> None:
    """Print what a library function returned: one JSON object, or `key: value` lines."""
    import msgspec

    plain = msgspec.to_builtins(result, enc_hook=_encode)
    if as_json:
        typer.echo(msgspec.json.encode(plain).decode())
        return
    for key, value in _lines(plain):
        typer.echo(f"{key}: {value}")


@contextmanager
def progress_bars(as_json: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a callback (what, done, total) that draws bars on stderr; None for scripts."""
    if as_json:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}

    def tell(what: str, done: int, total: int) -> None:
        if not tasks:
            progress.start()
        if what not in tasks:
            tasks[what] = progress.add_task(what)
        progress.update(tasks[what], completed=done, total=total)

    try:
        yield tell
    finally:
        if tasks:
            progress.stop()


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _lines(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings to dotted keys, in their order."""
    if not isinstance(tree, dict):
        return [(prefix or "result", tree)]
    lines: list[tuple[str, Any]] = []
    for key, value in tree.items():
        lines += _lines(value, f"{prefix}.{key}" if prefix else str(key))
    return lines
