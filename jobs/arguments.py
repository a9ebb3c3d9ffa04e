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


def parse(doc: str | None, **flags: str) -> tuple[RunConfig, argparse.Namespace]:
    """Read the command line; `flags` are on/off options with their help, by name."""
    parser = make_parser(doc)
    for name, text in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    arguments = parser.parse_args()
    return load_config(arguments.config, arguments.set), arguments


def show(result: Any) -> None:
    """Print a result as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
