"""Print constraints.txt: the versions in this environment of all that ray_rec's dependencies reach.

    python deploy/constraints.py > constraints.txt

Versions only: where packages come from is the business of each machine.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def declared() -> list[Requirement]:
    """Return what pyproject.toml asks for, with all extras."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def needed_by(requirement: Requirement) -> Iterator[Requirement]:
    """Yield what the installed distribution of a requirement needs in turn, on this platform."""
    for line in distribution(requirement.name).requires or ():
        further = Requirement(line)
        extras = ("", *requirement.extras)
        if not further.marker or any(further.marker.evaluate({"extra": e}) for e in extras):
            yield further


def reachable(roots: Iterable[Requirement]) -> dict[str, str]:
    """Return the installed version, by name, of all that the roots lead to.

    Raises:
        PackageNotFoundError: something on the way is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = list(roots)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        versions[name] = distribution(name).version
        queue.extend(needed_by(requirement))
    return versions


def main() -> int:
    """Write one `name==version` a line, sorted."""
    try:
        versions = reachable(declared())
    except PackageNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed here: run `make install` first\n")
        return 1
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
