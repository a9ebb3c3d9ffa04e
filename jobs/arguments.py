"""What every job takes: a configuration file, changes to it, and flags of its own."""

import argparse
import sys
from typing import Any

import msgspec

from ray_rec.config import RunConfig, load_config


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every job takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="TOML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser


def add_on_gap(parser: argparse.ArgumentParser) -> None:
    """Add `--on-gap`, short for a `--set`."""
    parser.add_argument(
        "--on-gap",
        dest="set",
        action="append",
        type="training.on_gap={}".format,
        metavar="fail|skip",
        help="what records that retention deleted unlearned mean; skip counts them as lost",
    )


def settings(arguments: argparse.Namespace) -> RunConfig:
    """Read the configuration that the command line names and changes."""
    return load_config(arguments.config, arguments.set)


def show(result: Any) -> None:
    """Print a result as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
