"""What workers tell each other; alone, each is the identity. Needs an initialised process group.

Counts, rows and metrics are on the CPU, a step's weights and gradients where the network learns: on
GPUs the group needs a backend for each of the two (`stream.process_group`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from ray_rec.training.metrics import Metrics

Int64 = npt.NDArray[np.int64]


class Workers:
    """The process group that this process is in, or this process alone."""

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if joined else 0
        self.count = dist.get_world_size() if joined else 1

    def wait(self) -> None:
        """Return when all workers have come here."""
        if self.count > 1:
            dist.barrier()

    def same(self, value: int) -> int:
        """Return the value of rank 0."""
        tensor = torch.tensor(value)
        if self.count > 1:
            dist.broadcast(tensor, src=0)
        return int(tensor)

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum over workers."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, value: float) -> float:
        """Return the mean over workers: the same number for all."""
        return float(self.add(torch.tensor(value, dtype=torch.float64))) / self.count

    def add_flat(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over workers, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(
            tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(summed.view_as(tensor))

    def add_metrics(self, metrics: Metrics) -> Metrics:
        """Return the metrics of all workers together."""
        if self.count == 1:
            return metrics
        return Metrics.unpack(self.add(metrics.pack()))

    def union(self, rows: Int64) -> tuple[Int64, Tensor]:
        """Return the sorted rows that any worker has, and the place of this worker's among them."""
        if self.count == 1:
            return rows, torch.arange(len(rows))
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(rows)]))
        longest = max(int(size) for size in sizes)
        padded = torch.full((longest,), -1, dtype=torch.int64)
        padded[: len(rows)] = torch.from_numpy(rows)
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        everything = np.unique(torch.cat(parts).numpy())
        union = everything[everything >= 0]
        return union, torch.from_numpy(np.searchsorted(union, rows))
