"""The loop every Train worker runs: take the next window, test on it, learn it, keep and publish.

A window's number is all that workers have to agree on: plans are told alike to everyone, and
only rank 0 keeps checkpoints and publishes.
"""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from ray_rec.config import RunConfig
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore
from ray_rec.training.checkpoint import TrainerCheckpoint
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.owner import WindowSide
from ray_rec.training.publisher import Candidate, Publisher

_CANONICAL: list[tuple[str, Literal["ascending", "descending"]]] = [
    (key, "ascending") for key in ("step", "topic_code", "partition", "offset")
]
"""Blocks arrive in any order; sums over rows are taken in this one."""


State = dict[str, pa.Table]


@dataclass(frozen=True)
class WorkerSetup:
    """What the driver gives each worker; `planner` and `owner` are actor handles."""

    config: RunConfig
    planner: Any
    owner: Any


def train_loop(setup: dict[str, Any]) -> None:
    """Run windows until the planner says there are no more (the function given to TorchTrainer)."""
    WindowLoop(setup["setup"]).run()


@dataclass
class _Timer:
    """Seconds since the last lap, by stage."""

    laps: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[f"{stage}_s"] = now - self._since
        self._since = now


class WindowLoop:
    """One worker's life: from the last checkpoint, window after window, to the last checkpoint."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup, config = setup, setup.config
        torch.set_num_threads(config.training.torch_threads)
        self._rank = ray.train.get_context().get_world_rank()
        self._world = ray.train.get_context().get_world_size()
        self._shard = ray.train.get_dataset_shard("windows")
        self._learner = Learner(config.model, config.learner, ray.train.torch.get_device())
        self._encoder = TextEncoder(config.encoder)
        self._texts = TextStore(f"{config.state_dir}/texts", self._encoder.digest)
        self._rows: list[str] = []
        self._number = 0
        self._learned = False
        self._gate = Gate(config.training.gate_queries, config.training.gate_margin)
        self._publisher: Publisher | None = None
        self._side: WindowSide | None = None
        self._kept_at = -float("inf")

    def run(self) -> None:
        """Learn every window the planner tells; what was learned is kept before it returns."""
        self._restore()
        first = self._number
        while True:
            window: Window | None = ray.get(self._setup.planner.plan.remote(self._number))
            if window is None:
                break
            metrics = self._learn(window)
            self._report(metrics, self._checkpoint() if self._due() else None)
        if self._number > first and self._learned:
            self._publish({})
            self._report({}, self._checkpoint())

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        state: State | None = None
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                kept = TrainerCheckpoint.read(Path(folder))
            self._learner.load(kept.learner)
            self._rows, self._number, state = kept.rows, kept.number, kept.state
            self._learned = True
            self._gate.rows = kept.held_out
        if self._rank == 0:
            ray.get(self._setup.owner.resume.remote(self._number, state))
            self._publisher = Publisher(self._setup.config, self._encoder.digest)
        if self._world > 1:
            dist.barrier()

    def _learn(self, window: Window) -> dict[str, Any]:
        timer = _Timer()
        tables = list(self._shard.iter_batches(batch_size=None, batch_format="pyarrow"))
        share = pa.concat_tables([EXAMPLES_SCHEMA.empty_table(), *tables]).sort_by(_CANONICAL)
        side: WindowSide = ray.get(self._setup.owner.side.remote(window.number))
        self._side = side
        timer.lap("read")
        self._observe(side.window.items)
        timer.lap("embed")
        tested = self._learner.test(side.window, share)
        timer.lap("test")
        learned = self._learner.learn(side.window, share, side.num_steps)
        timer.lap("learn")
        self._gate.add(side.held_out)
        self._number = window.number + 1
        metrics = {**tested.summary(), **learned.summary(), **side.window.counts}
        self._learned = self._learned or side.num_steps > 0
        if self._publisher is not None and self._learned and self._publisher.due():
            metrics |= self._publish(metrics)
        timer.lap("publish")
        metrics |= {"window": window.number, "records": window.num_records, **timer.laps}
        if self._rank == 0:
            self._setup.planner.record.remote(metrics)
        return metrics

    def _observe(self, items: pa.Table) -> None:
        """Bring new and changed items into the tables; rank 0 encodes, others find it stored."""
        if not items.num_rows:
            return
        if self._rank > 0:
            dist.barrier()
        texts = [str(text) for text in items["text"].to_pylist()]
        self._learner.observe(items, self._texts.vectors(texts, self._encoder.encode))
        if self._rank == 0 and self._world > 1:
            dist.barrier()
        new = items.filter(pc.field("row") >= len(self._rows)).sort_by("row")
        self._rows.extend(str(item_id) for item_id in new["item_id"].to_pylist())

    def _publish(self, metrics: dict[str, Any]) -> dict[str, Any]:
        if self._publisher is None or self._side is None:
            return {}
        candidate = Candidate(
            number=self._number,
            rows=self._rows,
            offsets=self._side.offsets,
            popularity=self._side.window.popularity,
            metrics={k: float(v) for k, v in metrics.items()},
        )
        return self._publisher.publish(self._learner, candidate, self._gate)

    def _due(self) -> bool:
        waited = time.monotonic() - self._kept_at
        return self._learned and waited >= self._setup.config.training.checkpoint_interval_s

    def _checkpoint(self) -> ray.train.Checkpoint | None:
        """Write what stands before the next window; None on other ranks, and while catching up.

        After a failure the owner of the state may be ahead of the workers; until they have
        reached it there is no state to keep beside their weights.
        """
        if self._publisher is None or self._side is None:
            return None
        state: State | None = ray.get(self._setup.owner.snapshot.remote(self._number))
        if state is None:
            return None
        folder = Path(tempfile.mkdtemp(prefix="ray_rec-checkpoint-"))
        TrainerCheckpoint(
            self._number, self._learner.state(), self._rows, self._gate.rows, state
        ).write(folder)
        self._publisher.publish_snapshot(self._number, state, self._side.offsets)
        self._kept_at = time.monotonic()
        return ray.train.Checkpoint.from_directory(folder)

    def _report(self, metrics: dict[str, Any], checkpoint: ray.train.Checkpoint | None) -> None:
        """Tell Ray Train; when it returns, the checkpoint is in the run's storage."""
        ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)
        if checkpoint is not None:
            self._setup.owner.commit.remote(self._number)
