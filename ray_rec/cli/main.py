"""The application with its commands, and what an error means for the one who called it.

Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 a log or broker does not answer;
130 interrupted before the end. Commands without an end of their own leave with 0 on Ctrl-C.
"""

import logging
import sys

import typer

from ray_rec.cli import data, models, runs
from ray_rec.errors import ConfigError, LogUnavailable, RayRecError

FAILED, WRONG_USAGE, UNAVAILABLE = 1, 2, 3

app = typer.Typer(
    name="ray-rec",
    help="A streaming recommender on Ray that learns from every click.",
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, "
        "3 log or broker does not answer, 130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
runs.register(app)


@app.callback()
def _root(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is done, to stderr."),
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, stream=sys.stderr)


def exit_code(error: RayRecError) -> int:
    """Return the exit code that an error of ours ends the program with."""
    if isinstance(error, LogUnavailable):
        return UNAVAILABLE
    return WRONG_USAGE if isinstance(error, ConfigError) else FAILED


def main() -> None:
    """Run the command line; errors of ours become one line on stderr and an exit code."""
    try:
        app()
    except RayRecError as error:
        # What crossed a Ray task has the remote traceback as its text, and the original here.
        plain = getattr(error, "cause", error)
        lines = (line.strip() for line in str(plain).splitlines())
        typer.echo(f"ray-rec: {' / '.join(filter(None, lines))}", err=True)
        sys.exit(exit_code(error))
