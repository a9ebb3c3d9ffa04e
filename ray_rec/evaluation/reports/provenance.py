"""Where a result comes from: code, machine, and the records it was made of."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from ray_rec.log.base import Offsets


def commit() -> str | None:
    """Return the commit of the code, marked when this package differs; None outside a checkout.

    What else a result follows from, its configuration and data, stands beside it.
    """
    git, package = shutil.which("git"), Path(__file__).resolve().parents[2]
    if git is None:
        return None

    def said(*command: str) -> str:
        told = [git, "-C", str(package), *command]
        return subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip()

    changed = said("status", "--porcelain", "--untracked-files=no", "--", ".")
    found = said("rev-parse", "--short=12", "HEAD")
    return (found + "-dirty" * bool(changed)) or None


def machine() -> dict[str, Any]:
    """Return what kind of machine this is; no names."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def data_digest(
    start: dict[str, Offsets], end: dict[str, Offsets], counts: dict[str, int]
) -> dict[str, Any]:
    """Return the stretch of the log that was read, its counts, and a digest of both."""
    content = {
        "from": {t: {str(p): o for p, o in sorted(by.items())} for t, by in sorted(start.items())},
        "until": {t: {str(p): o for p, o in sorted(by.items())} for t, by in sorted(end.items())},
        "counts": counts,
    }
    text = json.dumps(content, sort_keys=True)
    return {**content, "digest": hashlib.sha256(text.encode()).hexdigest()}
