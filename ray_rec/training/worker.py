"""The loop every Train worker runs: take the next window, test on it, learn it, publish and keep.

A window's number is all that workers have to agree on: plans are told alike to everyone, and
only rank 0 publishes and keeps checkpoints.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
import ray.train.torch
import torch

from ray_rec.config import RunConfig
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint
from ray_rec.training.divergence import Diverged, milder
from ray_rec.training.gate import Gate
from ray_rec.training.keeper import Keeper
from ray_rec.training.laps import Laps
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.owner import WindowSide
from ray_rec.training.publisher import Candidate, Kind, Publisher
from ray_rec.training.reader import WindowReader
from ray_rec.training.stopping import EarlyStopping
from ray_rec.training.vectors import TextVectors
from ray_rec.training.workers import Workers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSetup:
    """What the driver gives each worker; `planner` and `owner` are actor handles.

    `checkpoint`: the one to continue from; None takes the newest.
    """

    config: RunConfig
    planner: Any
    owner: Any
    checkpoint: int | None = None


def train_loop(setup: dict[str, Any]) -> None:
    """Run windows until the planner says there are no more (the function given to TorchTrainer)."""
    WindowLoop(setup["setup"]).run()


class WindowLoop:
    """One worker's life: from the last checkpoint, window after window, to the last checkpoint."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup, self._config = setup, setup.config
        torch.set_num_threads(self._config.training.torch_threads)
        self._workers = Workers()
        shard = ray.train.get_dataset_shard("windows")
        self._reader = WindowReader(shard, setup.planner, setup.owner, self._workers)
        self._encoder = TextEncoder(self._config.encoder)
        self._opened = self._encoder.digest
        self._vectors = TextVectors(self._config, self._opened, self._workers)
        self._checkpoints = Checkpoints.of(self._config)
        self._beside = ThreadPoolExecutor(1, "test")
        self._side: WindowSide | None = None
        self._publisher: Publisher | None = None
        self._keeper: Keeper | None = None
        if self._workers.rank == 0:
            self._publisher = Publisher(self._config, self._opened)
            self._keeper = Keeper(self._config, setup.owner.commit.remote)
        self._restore(setup.checkpoint)

    def run(self) -> None:
        """Learn every window the planner tells; what was learned is kept before it returns."""
        first = self._number
        while (window := self._reader.next(self._number)) is not None:
            try:
                metrics = self._learn(window)
            except Diverged as error:
                self._retreat(window, error)
                continue
            ray.train.report(metrics)
        if self._number > first and self._begun:
            self._keep()
        self._flush()

    def _flush(self) -> None:
        """Wait for what is being published and kept."""
        if self._publisher is not None:
            self._publisher.flush()
        if self._keeper is not None:
            self._keeper.flush()

    def _restore(self, at_most: int | None = None) -> None:
        """Begin as the newest usable checkpoint says, on all workers alike; or as nothing known."""
        ask = self._setup.owner.resume.remote
        kept = self._checkpoints.agreed(self._workers, lambda n: bool(ray.get(ask(n))), at_most)
        config, device = self._config, ray.train.torch.get_device()
        learning = TextEncoder(config.encoder, device) if config.encoder.learns else None
        self._encoder = learning or self._encoder
        self._learner = Learner(config.model, config.learner, device, learning)
        self._gate = Gate(config.model, config.training.gate_queries, config.training.gate_margin)
        self._stopping = EarlyStopping(self._gate, self._workers)
        self._number, self._begun = kept.number if kept is not None else 0, kept is not None
        self._rows: list[str] = []
        if kept is not None:
            self._learner.load(kept.learner)
            self._stopping.load(kept.learner)
            self._gate.rows = kept.held_out
            self._rows = list(kept.rows)
        if self._publisher is not None:
            self._publisher.go_on(kept)

    def _retreat(self, window: Window, error: Diverged) -> None:
        """Go back to the last checkpoint, with a milder plan for the window that diverged."""
        amended = milder(window, self._config.learner.retry_scale)
        what = "set aside" if amended.set_aside else f"tried at {amended.rate_scale:g} of its rate"
        _log.error("%s; window %d is %s", error, window.number, what)
        self._reader.drop()
        self._flush()
        if self._workers.rank == 0:
            ray.get(self._setup.planner.amend.remote(amended))
        self._workers.wait()
        self._restore()

    def _learn(self, window: Window) -> dict[str, Any]:
        laps = Laps()
        share, side = self._reader.read(window)
        self._side = side
        keep = self._keeper is not None and self._keeper.due()
        self._reader.read_ahead(window.number + 1, unless=keep or window.is_measured)
        laps.end("read")
        self._observe(side.window.items)
        laps.end("embed")
        tested = self._tested(window, share, side)
        laps.end("test")
        metrics: dict[str, Any] = {**side.metrics, **self._taught(window, share, side)}
        metrics |= self._measured(window, side)
        laps.end("learn")
        metrics |= self._workers.add_metrics(tested.result()).summary()
        laps.end("test")
        self._number = window.number + 1
        if window.publish != "none" and self._learner.steps:
            self._publish(metrics, self._renewed(window.publish))
        laps.end("publish")
        if keep and self._begun:
            self._keep()
        laps.end("checkpoint")
        metrics |= {"window": window.number, "records": window.num_records, **laps.seconds}
        metrics |= {"lost": window.num_lost, "finished_at": time.time()}
        if self._workers.rank == 0:
            self._setup.planner.record.remote(metrics)
        return metrics

    def _tested(self, window: Window, share: pa.Table, side: WindowSide) -> Future[Metrics]:
        """Begin to predict some rows by the weights of now, but those that passes learn again."""
        if window.passes is not None:
            return self._beside.submit(Metrics)
        tested_share = self._config.learner.tested_share(side.num_rows)
        return self._beside.submit(self._learner.tester(side.window, share, tested_share))

    def _taught(self, window: Window, share: pa.Table, side: WindowSide) -> dict[str, float]:
        """Learn a window's rows, or count those that passes to come learn; return what it came to.

        What held-out users did is for the gate at once, and for probabilities once others learned.
        """
        lesson = side.lesson
        if lesson.stretch is None:
            self._gate.add(lesson.held_out)
        if window.set_aside:
            return {"set_aside": side.num_rows}
        self._begun = self._begun or window.gathers or lesson.num_steps > 0
        if window.gathers:
            self._learner.count(lesson.gathered)
            return {}
        steps, rate = lesson.num_steps, window.rate_scale
        learned = self._learner.learn(side.window, share, steps, rate, lesson.stretch).summary()
        self._learner.calibrate(lesson.held_out)
        return {f"learned_{name}": mean for name, mean in learned.items()}

    def _measured(self, window: Window, side: WindowSide) -> dict[str, float]:
        """Measure a pass that ends with a window; if all passes end here, its plan says so."""
        if window.passes is None or not window.is_measured:
            return {}
        passes = self._stopping.after(window.passes, self._learner, side.window.popularity)
        if passes != window.passes and self._workers.rank == 0:
            ray.get(self._setup.planner.amend.remote(replace(window, passes=passes)))
        self._workers.wait()
        return {"validation_loss": self._stopping.loss}

    def _observe(self, items: pa.Table) -> None:
        """Bring new and changed items into the tables."""
        if not items.num_rows:
            return
        texts = [str(text) for text in items["text"].to_pylist()]
        self._learner.observe(items, self._vectors.of(texts, self._encoder))
        new = items.filter(pc.field("row") >= len(self._rows)).sort_by("row")
        self._rows.extend(str(item_id) for item_id in new["item_id"].to_pylist())

    def _renewed(self, kind: Kind) -> Kind:
        """Bring all texts to what an encoder that learns is now; its version is a full one."""
        if not self._config.encoder.learns:
            return kind
        self._learner.renew_texts()
        if self._publisher is not None:
            self._publisher.take_encoder(self._encoder)
        return "full"

    def _publish(self, metrics: dict[str, Any], kind: Kind) -> None:
        if self._publisher is None or self._side is None:
            self._learner.published()  # all workers count changes alike
            return
        candidate = Candidate(
            number=self._number,
            rows=list(self._rows),
            offsets=self._side.offsets,
            popularity=self._side.window.popularity,
            metrics={k: float(v) for k, v in metrics.items()},
        )
        self._publisher.begin(self._learner, candidate, self._gate, kind)

    def _keep(self) -> None:
        """Begin to keep what stands before the next window, unless the owner is already further.

        After a failure it may be ahead of the workers; until they have reached it there is no
        state to keep beside their weights.
        """
        if self._keeper is None or self._publisher is None or self._side is None:
            return
        self._flush()
        state = ray.get(self._setup.owner.snapshot.remote(self._number, self._keeper.base))
        if state is not None:
            checkpoint = TrainerCheckpoint(
                number=self._number,
                learner=self._learner.state() | self._stopping.state(),
                rows=tuple(self._rows),
                held_out=self._gate.rows,
                published=self._publisher.last,
                encoders=(self._opened, self._publisher.encoder),
            )
            self._keeper.keep(checkpoint, state, self._side.offsets)
