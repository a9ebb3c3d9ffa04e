"""What a version costs: to publish whole and as a delta, and to follow, at a large catalogue.

    python -m benchmarks.publishing [--quick]

A catalogue of 92,331 items, each with a text of its own, 64 dimensions; between two versions 200
examples are learned (some 4,000 rows touched). One thread, as the trainer and a replica have.
`begin_*_s`: what a window waits for; `publish_*_s`: with judging and writing; `load_*_s`: reading
and checking, from a version before for a delta; `swap_*_s`: from a loaded version to one that
answers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks._results import finish
from ray_rec.config import RunConfig
from ray_rec.features.examples import EXAMPLES_SCHEMA, WINDOW_ITEMS_SCHEMA, WindowExamples
from ray_rec.features.state import FeatureState
from ray_rec.registry import Registry
from ray_rec.serving.engine import Engine
from ray_rec.training.gate import Gate
from ray_rec.training.learner import Learner
from ray_rec.training.publisher import Candidate, Kind, Publisher

NUM_ITEMS, EXAMPLES, HISTORY = 92_331, 200, 20
KINDS: tuple[Kind, ...] = ("full", "delta")
NOW_MS, HOUR_MS = 1_700_000_000_000, 3_600_000


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items")
    arguments = parser.parse_args()
    num_items, rounds = (NUM_ITEMS // 10, 5) if arguments.quick else (NUM_ITEMS, 12)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ray-rec-publishing-") as folder:
        config = RunConfig(registry=f"{folder}/registry", state_dir=f"{folder}/state")
        trainer = Trainer(config, num_items)
        result: dict[str, Any] = {}
        for kind in KINDS:
            begun, done = np.median([trainer.publish(kind) for _ in range(rounds)], axis=0)
            result |= {f"begin_{kind}_s": float(begun), f"publish_{kind}_s": float(done)}
        result |= followed(config, trainer.number, num_items)
        result |= sizes(config, trainer.number)
    kept = {"items": num_items, "rounds": rounds, "examples": EXAMPLES, "dim": config.model.dim}
    finish("publishing", result, kept, arguments.quick)


class Trainer:
    """A learner of many items, and what publishes it."""

    def __init__(self, config: RunConfig, num_items: int) -> None:
        self.number = 0
        self._num_items = num_items
        self._random = np.random.default_rng(0)
        self._learner = Learner(config.model, config.learner)
        vectors = self._random.normal(size=(num_items, 384)).astype(np.float32)
        self._learner.observe(catalogue(num_items), vectors)
        self._responses = np.zeros((num_items, 1 + RunConfig().model.num_outcomes), np.int64)
        self._popularity = np.log1p(self._random.gamma(0.5, 5, (num_items, 3))).astype(np.float32)
        training = config.training
        self._gate = Gate(config.model, training.gate_queries, training.gate_margin)
        self._gate.add(self._examples(4 * training.gate_queries))
        self._publisher = Publisher(config, "random")

    def publish(self, kind: Kind) -> tuple[float, float]:
        """Learn and publish; returns the seconds until learning could go on, and in all."""
        rows = self._examples(EXAMPLES)
        no_items = WINDOW_ITEMS_SCHEMA.empty_table()
        window = WindowExamples(
            self.number, rows, no_items, self._popularity, NOW_MS, self._responses, {}
        )
        self._learner.learn(window, rows, 4)
        self._gate.add(self._examples(3))
        self.number += 1
        ids = [f"i{n}" for n in range(self._num_items)]
        offsets = {"events": {0: self.number}}
        candidate = Candidate(self.number, ids, offsets, self._popularity, {})
        begun = timed(lambda: self._publisher.begin(self._learner, candidate, self._gate, kind))[0]
        return begun, begun + timed(self._publisher.flush)[0]

    def _examples(self, num: int) -> pa.Table:
        bought = self._random.zipf(1.3, (num, HISTORY + 1)) % self._num_items
        ts = [NOW_MS - (HISTORY - at) * HOUR_MS for at in range(HISTORY)]
        rows = [example(at, items.tolist(), ts) for at, items in enumerate(bought)]
        return pa.Table.from_pylist(rows, EXAMPLES_SCHEMA)


def example(at: int, items: list[int], ts: list[int]) -> dict[str, Any]:
    """One query of a history for the item that came after it."""
    empty: dict[str, Any] = {
        name: [] for name in EXAMPLES_SCHEMA.names if name.startswith("shown_")
    }
    return empty | {
        "step": at // 64,
        "topic_code": 0,
        "partition": 0,
        "offset": at,
        "held_out": False,
        "token_item": items[:-1],
        "token_type": [4] * HISTORY,
        "token_ts": ts,
        "query_context": [HISTORY],
        "query_ts": [NOW_MS],
        "target_query": [0],
        "target_item": items[-1:],
        "target_type": [4],
    }


def catalogue(num_items: int) -> pa.Table:
    """All items, as new ones."""
    columns: dict[str, Any] = {
        "row": pa.array(range(num_items), pa.int32()),
        "item_id": [f"i{n}" for n in range(num_items)],
        "text": [f"item {n}" for n in range(num_items)],
        "price": pa.array(np.ones(num_items), pa.float32()),
        "category": pa.nulls(num_items, pa.string()),
        "brand": pa.nulls(num_items, pa.string()),
        "available": [True] * num_items,
    }
    return pa.table(columns, schema=WINDOW_ITEMS_SCHEMA)


def followed(config: RunConfig, newest: int, num_items: int) -> dict[str, float]:
    """Load the last ten deltas whole, one after the other and at once; swap each in."""
    registry, state = Registry(config.registry), FeatureState(config.features)
    state.catalogue.rows(pa.array([f"i{n}" for n in range(num_items)]), add=True)
    engine = Engine(config.features, config.serving, state)
    first = newest - min(10, newest // 2 - 1)
    load_full, version = timed(lambda: registry.load(first))
    missed = version
    engine.swap(version)
    loads, swaps = [], []
    for number in range(first + 1, newest + 1):
        seconds, version = timed(partial(registry.load, number, version))
        loads.append(seconds)
        swaps.append(timed(partial(engine.swap, version))[0])
    return {
        "load_whole_s": load_full,
        "load_delta_s": float(np.median(loads)),
        "load_missed_s": timed(lambda: registry.load(newest, missed))[0],
        "swap_s": float(np.median(swaps)),
    }


def sizes(config: RunConfig, newest: int) -> dict[str, float]:
    """Return megabytes of a full version's files and of a delta's."""
    names = {"full_mb": newest // 2, "delta_mb": newest}
    folders = {k: Path(config.registry) / f"versions/{n:08d}" for k, n in names.items()}
    return {k: sum(f.stat().st_size for f in d.iterdir()) / 1e6 for k, d in folders.items()}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, and what it returned."""
    began = time.perf_counter()
    made = call()
    return time.perf_counter() - began, made


if __name__ == "__main__":
    main()
