"""One function as one task of a cluster, where the job was submitted to one."""

import os
from collections.abc import Callable
from typing import Any


def run_as_task(
    function: Callable[..., dict[str, Any]], *arguments: Any, progress: Any = None
) -> dict[str, Any]:
    """Return what the function returns; without a cluster (no RAY_ADDRESS) it runs here.

    `progress` is given as `progress=` where it runs here: a task has nobody to tell.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return function(*arguments, progress=progress)
    import ray

    from ray_rec.training.stream import connect

    connect()
    task = ray.remote(num_cpus=1)(function)
    report: dict[str, Any] = ray.get(task.remote(*arguments))
    return report
