"""What two workers tell each other over a group with a backend for each device, as on GPUs."""

from pathlib import Path

import numpy as np
import torch

from ray_rec.training.config import TrainingConfig
from ray_rec.training.metrics import Metrics
from ray_rec.training.stream import process_group
from ray_rec.training.workers import Workers
from tests.training.pair import run_pair


def test_cpu_tensors_have_a_backend_beside_that_of_gpus() -> None:
    """Ray would take NCCL alone for GPUs; such a group refuses what is on the CPU."""
    assert process_group(TrainingConfig(use_gpu=True)).backend == "cpu:gloo,cuda:nccl"
    assert process_group(TrainingConfig()).backend == "gloo"


def _exchange(rank: int, folder: Path) -> None:
    """Worker 0 has rows 3 and 9 and a loss of 2 over 1; worker 1 row 5, twice, and 4 over 3."""
    torch.set_num_threads(1)
    workers = Workers()
    workers.wait()
    counts, grad = torch.tensor([1.0 + rank]), torch.full((2, 2), 10.0 * (1 + rank))
    workers.add_flat([counts, grad])
    union, place = workers.union(np.array([[3, 9], [5, 5]][rank]))
    losses = [Metrics({"recall_loss": (2.0, 1.0)}), Metrics({"recall_loss": (4.0, 3.0)})]
    told = {
        "who": [workers.rank, workers.count],
        "same": workers.same(7 + rank),
        "rows": int(workers.add(torch.tensor(20 + rank))),
        "mean": workers.mean(2.0 + rank),
        "counts": counts.tolist(),
        "grad": grad.tolist(),
        "union": union.tolist(),
        "place": place.tolist(),
        "losses": dict(workers.add_metrics(losses[rank]).sums),
    }
    torch.save(told, folder / f"{rank}.pt")


def test_two_workers_exchange_what_is_on_the_cpu(tmp_path: Path) -> None:
    run_pair(_exchange, tmp_path, "cpu:gloo,cuda:gloo")
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [each.pop("who") for each in told] == [[0, 2], [1, 2]]
    assert [each.pop("place") for each in told] == [[0, 2], [1, 1]]
    wanted = {
        "same": 7,
        "rows": 20 + 21,
        "mean": 2.5,
        "counts": [1.0 + 2.0],
        "grad": [[10.0 + 20.0] * 2] * 2,
        "union": [3, 5, 9],
        "losses": {"recall_loss": (2.0 + 4.0, 1.0 + 3.0)},
    }
    assert told == [wanted, wanted]
