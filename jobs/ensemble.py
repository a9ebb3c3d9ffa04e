"""Publish versions of several registries as one that answers for all, in a registry of its own.

python -m jobs.ensemble --members var/seed0 var/seed1 var/seed2 --out var/ensemble
python -m jobs.ensemble --members var/a var/b --out var/both --combine rank-vote
python -m jobs.ensemble --members var/a var/b --out var/both --combine stacking \
    --recall-weights 0.7 0.4 --click-weights 0.6 0.5

Each member is the version in service of its registry; they must have one encoder. Serve the result
with --set registry=var/ensemble.
"""

import argparse
import sys
from typing import get_args

import msgspec

from jobs.arguments import show
from ray_rec.errors import RegistryError
from ray_rec.model.combining import Combine
from ray_rec.model.config import ModelConfig
from ray_rec.model.ensemble import EnsembleConfig
from ray_rec.registry import Registry, Version
from ray_rec.registry.ensembles import publish_ensemble


def main() -> int:
    """Load the members, publish, and print what was published."""
    given = _arguments()
    members = [_in_service(url) for url in given.members]
    models = tuple(
        msgspec.convert(member.manifest.config["model"], ModelConfig) for member in members
    )
    config = EnsembleConfig(
        models, given.combine, tuple(given.recall_weights), tuple(given.click_weights)
    )
    registry = Registry(given.out, create=True)
    number = max([-1, *registry.versions()]) + 1
    manifest = publish_ensemble(registry, number, members, config)
    show({"version": manifest.version, "digest": manifest.digest, "num_items": manifest.num_items})
    return 0


def _in_service(url: str) -> Version:
    registry = Registry(url)
    current = registry.current()
    if current is None:
        raise RegistryError(f"registry {url} has no version in service; train one first")
    return registry.load(current.version)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", nargs="+", required=True, help="URLs of registries")
    parser.add_argument("--out", required=True, help="URL of the registry to publish in")
    parser.add_argument("--combine", choices=get_args(Combine), default="score-average")
    parser.add_argument("--recall-weights", type=float, nargs="*", default=[])
    parser.add_argument("--click-weights", type=float, nargs="*", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
