"""Two processes in one gloo group, as two Train workers without Ray."""

import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch.distributed as dist

Work = Callable[[int, Path], None]
"""Called in each process with (rank, folder); a function of a module, as processes are spawned."""


def run_pair(work: Work, folder: Path, backend: str = "gloo") -> None:
    """Let two processes work at once; what they find they leave in the folder."""
    context = get_context("spawn")
    workers = [
        context.Process(target=_joined, args=(work, rank, folder, backend)) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]


def _joined(work: Work, rank: int, folder: Path, backend: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(backend, f"file://{folder}/meet", rank=rank, world_size=2)
    work(rank, folder)
    dist.destroy_process_group()
