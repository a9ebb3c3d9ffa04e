"""Examples a second of the whole streaming path, beside a bare PyTorch loop over the same ones.

    python -m benchmarks.training [--quick]

Weeks of Complete Journey are learned by one Ray Train worker from the log, with everything that a
stream does (plans, reading, state and join, testing before learning, publishing, checkpoints).
The bare loop has the same examples in memory, in the same steps, and only learns. It runs before
and after; the mean counts:
`ratio_bare_torch`: examples/s of the path against the loop's, from the first learned window on;
`window_fixed_s_p50`: a window of ten new events, from its plan to its rows in the worker;
`stages_s_p50`: where a full window's time goes.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from benchmarks._journey import configure, load
from benchmarks._results import finish
from ray_rec.config import RunConfig
from ray_rec.events.parse import encode
from ray_rec.events.schema import EVENTS, Event, Record
from ray_rec.features.examples import Batch, WindowExamples, assign_steps
from ray_rec.features.state import FeatureState
from ray_rec.log.base import open_log
from ray_rec.log.reading import read_decoded
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.items import ItemTable
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.model.text import TextStore, Whitening
from ray_rec.training.embed import embed_catalogue
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Negatives
from ray_rec.training.optimizer import dense_optimizer, rowwise_adagrad_
from ray_rec.training.plans import PlanStore
from ray_rec.training.steps import make_step, shares
from ray_rec.training.stream import connect, run_stream

STAGES = ("read", "embed", "test", "learn", "publish", "checkpoint")
SMALL_WINDOWS, SMALL_EVENTS = 60, 10
STEADY = ("training.publish_interval_s=1", "training.checkpoint_interval_s=30")
UNPUBLISHED = ("training.publish_interval_s=3600",)
"""No empty window is made to publish, beside which the next one would be read ahead."""


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run of a minute or two")
    arguments = parser.parse_args()
    weeks = (50, 53) if arguments.quick else (38, 53)
    with tempfile.TemporaryDirectory(prefix="ray-rec-training-") as folder:
        config = configure(folder, *STEADY, "partitions=1")
        loaded = load(config, weeks)
        connect()
        embed_catalogue(config)
        learned, seconds = learn_by_stream(config)
        repeated = list(examples_of(config))
        bare = [learn_bare(config, repeated) for _ in range(2)]
        fixed = small_windows(configure(folder, *UNPUBLISHED, "partitions=1"))
    examples = sum(window["examples"] for window in learned)
    result = {
        "examples_per_s": examples / seconds,
        "bare_examples_per_s": statistics.mean(bare),
        "ratio_bare_torch": examples / seconds / statistics.mean(bare),
        "window_fixed_s_p50": float(np.median(fixed)),
        "window_fixed_s_p90": float(np.quantile(fixed, 0.9)),
        "stages_s_p50": stages(learned),
    }
    details = {
        "weeks": weeks,
        "records": loaded,
        "windows": len(learned),
        "examples": examples,
        "stages_s": {name: sum(w[f"{name}_s"] for w in learned) for name in STAGES},
        "bare_runs": bare,
    }
    finish("training", result, config.to_dict() | details, arguments.quick)


def learn_by_stream(config: RunConfig) -> tuple[list[dict[str, Any]], float]:
    """Learn the log; return the metrics of windows with examples, and the seconds they took."""
    windows: list[dict[str, Any]] = []
    run_stream(config, bounded=True, on_metrics=windows.append)
    learned = [window for window in windows if window["examples"]]
    began = learned[0]["finished_at"] - sum(learned[0][f"{stage}_s"] for stage in STAGES)
    return learned, learned[-1]["finished_at"] - began


def stages(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each stage of a window, in seconds."""
    return {
        name: round(float(np.median([window[f"{name}_s"] for window in windows])), 4)
        for name in STAGES
    }


Repeated = tuple[WindowExamples, list[Batch]]


def examples_of(config: RunConfig) -> Iterator[Repeated]:
    """Yield the examples of each window of the run's plans, as batches in memory."""
    state, plans = FeatureState(config.features), PlanStore(f"{config.state_dir}/plans")
    for number in plans.numbers():
        window = plans.get(number)
        assert window is not None
        decoded = read_decoded(config.log, window.ranges)
        made = state.apply(window, {topic: part.table for topic, part in decoded.items()})
        rows = assign_steps(made.examples, config.learner.rows_per_step)
        rows = rows.filter(pc.invert(rows["held_out"]))
        steps = 1 + (pc.max(rows["step"]).as_py() if rows.num_rows else -1)
        batches = shares(rows, steps, config.model.num_outcomes)
        yield made, [batch for batch in batches if batch is not None]


def learn_bare(config: RunConfig, windows: Sequence[Repeated]) -> float:
    """Learn the batches with nothing around; return examples a second."""
    torch.set_num_threads(config.training.torch_threads)
    torch.manual_seed(0)
    model, items = _model_and_items(config, [made for made, _ in windows])
    optimizer = dense_optimizer(dict(model.named_parameters()), config.learner)
    parameters, device = list(model.parameters()), torch.device("cpu")
    popularity = torch.zeros(len(items), len(config.features.half_lives_days))
    model.train()
    examples, started = 0, time.perf_counter()
    for made, batches in windows:
        known = made.popularity
        popularity[: len(known)] = torch.from_numpy(known)
        once = Moments.once(popularity.numpy())
        negatives = Negatives(popularity.numpy(), config.model, made.number)
        for step, batch in enumerate(batches):
            drawn = negatives.draw(step)
            rows, inputs = make_step(batch, drawn, once, device, torch.float32)
            index = torch.from_numpy(rows)
            taken = items.gather(index, popularity[None], config.model.id_prior)
            sums = model.losses(taken, inputs)
            loss = config.model.beta * sums.recall / max(1, sums.recall_weight)
            loss = loss + config.model.alpha * sums.click / max(1, sums.click_weight)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, config.learner.clip)
            optimizer.step()
            grad = taken.id.grad
            if grad is not None:
                rowwise_adagrad_(items.id, items.accumulator, index, grad, config.learner.id_lr)
            places = torch.searchsorted(index, torch.from_numpy(batch.target_item))
            items.count[index] += torch.bincount(places, minlength=len(index))
            examples += len(batch.length)
    return examples / (time.perf_counter() - started)


def _model_and_items(
    config: RunConfig, windows: Sequence[WindowExamples]
) -> tuple[MultiTaskModel, ItemTable]:
    """Return a fresh network and tables of all items, with their texts."""
    model = MultiTaskModel(config.model)
    items = ItemTable(config.model, torch.float32, torch.device("cpu"))
    encoder = TextEncoder(config.encoder)
    store = TextStore(f"{config.state_dir}/texts", encoder.digest)
    whitening: Whitening | None = None
    for made in windows:
        if not made.items.num_rows:
            continue
        texts = [str(text) for text in made.items["text"].to_pylist()]
        distinct, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
        raw = store.vectors([str(text) for text in distinct], encoder.encode)
        whitening = whitening or Whitening.fit(raw, config.model.text_dim)
        row = torch.from_numpy(made.items["row"].to_numpy().astype(np.int64))
        first = items.add_texts(whitening.apply(torch.from_numpy(raw)))
        items.grow(int(row.max()) + 1)
        items.text_row[row] = torch.from_numpy(place.astype(np.int64)) + first
    return model, items


def small_windows(config: RunConfig) -> list[float]:
    """Seconds that windows of ten events take from plan to rows, while the stream is idle else."""
    stop, fixed, sent, told = threading.Event(), list[float](), 0, 0
    with open_log(config.log) as log:

        def send() -> None:
            nonlocal sent
            now = int(time.time() * 1000)
            log.append(EVENTS, [_event(sent * SMALL_EVENTS + n, now) for n in range(SMALL_EVENTS)])
            sent += 1

        def tell(metrics: dict[str, Any]) -> None:
            nonlocal told
            if metrics["records"] == SMALL_EVENTS:
                fixed.append(metrics["read_s"])
                told += 1
            if len(fixed) >= SMALL_WINDOWS:
                stop.set()
            elif told == sent:  # nothing waits, so that none is read ahead
                send()

        send()
        run_stream(config, stop=stop, on_metrics=tell)
    return fixed


def _event(number: int, now_ms: int) -> Record:
    event = Event(
        event_id=f"small-{number}",
        user_id=f"small-{number % 100}",
        item_id=str(1_000_000 + number % 50),
        event_type="purchase",
        ts=now_ms,
    )
    return Record(event.user_id.encode(), encode(event), event.ts)


if __name__ == "__main__":
    main()
