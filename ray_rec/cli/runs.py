"""The commands that learn, serve and measure."""

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ray_rec.cli.evaluation import evaluate
from ray_rec.cli.options import (
    AsJson,
    ConfigFile,
    End,
    Overrides,
    Start,
    progress_bars,
    settings,
    show,
)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
OnGap = Annotated[
    Literal["fail", "skip"] | None,
    typer.Option(help="What records that retention deleted unlearned mean (training.on_gap)."),
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]


def register(app: typer.Typer) -> None:
    """Add the commands in the order in which a newcomer meets them."""
    for command in (demo, train, stream, serve, backtest, evaluate, replay, status):
        app.command()(command)


def demo(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Run the whole loop on real data, until Ctrl-C; started again, it goes on where it was.

    Without a configuration of your own it runs with serve/demo.toml.
    """
    _attribute("serve.quiet:quiet")()
    chosen = config or _attribute("serve.demo:CONFIG")
    _attribute("serve.demo:run")(settings(chosen, overrides), host, port)


def train(
    on_gap: OnGap = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Learn from what the log holds now, continuing where the last run stopped, and end there."""
    run = settings(config, _with_gap(overrides, on_gap))
    from ray_rec.training.interrupt import stop_on_signals
    from ray_rec.training.stream import run_stream

    if run.encoder.learns:
        from ray_rec.model.encoder import TextEncoder

        typer.echo(TextEncoder(run.encoder).size, err=True)
    with stop_on_signals() as stop:
        show(run_stream(run, bounded=True, stop=stop), as_json)
    if stop.is_set():
        raise typer.Exit(130)


def stream(
    plans: Annotated[
        str | None,
        typer.Option(help="Repeat these plans of another run, to their end. A folder or URL."),
    ] = None,
    on_gap: OnGap = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Learn from the log window after window until Ctrl-C, publishing versions as it goes."""
    run = settings(config, _with_gap(overrides, on_gap))
    from ray_rec.training.interrupt import stop_on_signals
    from ray_rec.training.stream import run_stream

    with stop_on_signals() as stop:
        show(run_stream(run, plans=plans, stop=stop), as_json)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Answer recommendation requests with the version in service, until Ctrl-C."""
    _attribute("serve.launch:run")(settings(config, overrides), host, port, typer.echo)


def backtest(
    out: Annotated[Path, typer.Option(help="Folder for the JSON and the HTML report.")] = Path(
        "var/backtest"
    ),
    start: Start = None,
    end: End = None,
    warmup_windows: Annotated[
        int, typer.Option(min=0, help="Windows that are learned before the first is tested.")
    ] = 1,
    max_queries: Annotated[
        int, typer.Option(min=0, help="Questions tested in each window; 0 tests all.")
    ] = 200,
    twins: Annotated[
        bool, typer.Option("--twins", help="Learn and ask the two single-task twins beside it.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Replay a stretch of the log: test, then train, beside the baselines."""
    run = settings(config, overrides)
    from ray_rec.evaluation.backtest import Options, run_backtest

    options = Options(start, end, warmup_windows, max_queries, twins=twins)
    with progress_bars(as_json) as bars:

        def tell(done: int, total: int, _metrics: dict[str, float]) -> None:
            if bars is not None:
                bars("records", done, total)

        headline = run_backtest(run, out, options, tell)
    show(headline, as_json)


def replay(
    source: Annotated[
        str | None, typer.Argument(help="Log URL or folder of an archive; else the run's log.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Log URL to write to; else the run's log.")] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="events, or events=other-name. Repeatable; else all but dead-letter."),
    ] = None,
    offsets: Annotated[
        list[str] | None, typer.Option(help="events:0:100-200 (partition 0). Repeatable.")
    ] = None,
    start: Start = None,
    end: End = None,
    speed: Annotated[float, typer.Option(help="1 is the original pace, 0 does not wait.")] = 0.0,
    dead_letter: Annotated[
        bool, typer.Option("--dead-letter", help="Put dead letters back to their topics.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Copy a stretch of a log or an archive to a log, at a chosen speed."""
    log = settings(config, overrides).log
    from ray_rec.log.replay_request import ReplayRequest, run_replay
    from ray_rec.training.interrupt import stop_on_signals

    request = ReplayRequest(
        source or log, to or log, topic or (), offsets or (), start, end, speed, dead_letter
    )
    with stop_on_signals() as stop:
        show(run_replay(request, stop), as_json)
    if stop.is_set():
        raise typer.Exit(130)


def status(config: ConfigFile = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show in one screen how the log, the stream and the versions stand."""
    run = settings(config, overrides)
    from ray_rec.training.status import status as read_status

    found = read_status(run)
    if as_json:
        show(found, as_json=True)
        return
    from ray_rec.cli.status import print_status

    print_status(found)


def _with_gap(overrides: list[str] | None, on_gap: str | None) -> list[str]:
    return [*(overrides or ()), *([f"training.on_gap={on_gap}"] if on_gap else ())]


def _attribute(target: str) -> Any:
    """Return `module:name` of the applications, which the library does not import."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
