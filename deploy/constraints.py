"""Print constraints.txt: the versions in this environment of all that ray_rec's dependencies reach.

    python deploy/constraints.py > constraints.txt

Versions only: where packages come from is the business of each machine.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "ray-rec"
EXTRAS = frozenset({"kafka", "serve", "demo", "dev"})


def requirements(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Yield what one installed distribution needs on this platform with the given extras."""
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def reachable() -> dict[str, str]:
    """Version by name of every distribution that ray_rec with all its extras leads to."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue: list[tuple[str, frozenset[str]]] = [(PROJECT, EXTRAS)]
    while queue:
        entry = queue.pop()
        if entry in seen:
            continue
        seen.add(entry)
        for requirement in requirements(*entry):
            name = canonicalize_name(requirement.name)
            versions[name] = distribution(name).version
            queue.append((name, frozenset(requirement.extras)))
    return versions


def main() -> int:
    """Write one `name==version` a line, sorted."""
    try:
        versions = reachable()
    except PackageNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed here: run `make install` first\n")
        return 1
    versions.pop(PROJECT, None)
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
