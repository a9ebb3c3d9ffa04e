"""Where benchmark results go: one JSON file each, with commit, machine and configuration."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
_PLACES = ("log", "registry", "state_dir")
"""Of a configuration: a temporary folder says nothing afterwards."""
_PACKAGES = ("ray", "torch", "pyarrow", "kafka-python", "confluent-kafka", "msgspec")


def finish(
    name: str, result: Mapping[str, Any], config: Mapping[str, Any], quick: bool = False
) -> None:
    """Keep `result` in results/NAME.json (NAME-quick.json) and print it as the last line."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}
    record = {
        "benchmark": name,
        "quick": quick,
        "result": rounded,
        "config": lasting(config),
        "commit": commit(),
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    path.write_text(json.dumps(record, indent=2, default=str) + "\n")
    print(json.dumps(rounded), flush=True)


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration says something on another machine."""
    return {key: value for key, value in config.items() if key not in _PLACES}


def put_tables(name: str, lines: Iterable[str]) -> None:
    """Write a benchmark's tables into docs/results.md, from its mark to the next one."""
    mark = f"<!-- tables: python -m benchmarks.{name} -->"
    before, after = PAGE.read_text().split(mark)
    at = after.find("<!-- tables:")
    rest = "\n" + after[at:] if at >= 0 else ""
    PAGE.write_text(f"{before}{mark}\n\n" + "\n".join(lines) + rest)


def commit() -> str:
    """Return the commit, with `+` when the tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    state = [*git, "status", "--porcelain", "--untracked-files=no", ":!benchmarks/results"]
    changed = subprocess.run(state, capture_output=True, text=True, check=False)
    return (head.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


def short(commit: str) -> str:
    """Return a commit as a page names it, with the mark of a tree that differs."""
    return commit[:12] + "+" * commit.endswith("+")


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
