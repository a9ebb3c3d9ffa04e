"""What it is worth to go on learning, and which way of it, prequential on Complete Journey.

    python -m benchmarks.continual [--seeds 0 1] [--again]

All models have learned weeks 33 to 44 window by window, as serve/demo.toml says. In weeks 45 to 50
each goes on in its own way and is asked the same in windows of 1,000 records: what will be bought
next, among all items, and which promoted items will be bought, predicted when they are shown and
judged when their week is over. Histories, popularity and catalogue go on for all of them. Answers
of a seed by this code are kept in var/quality/continual; numbers and curves are made of all that
are there.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks._continual import section, summarise
from benchmarks._pupils import answers, measure
from benchmarks._results import ROOT, lasting, put_tables
from benchmarks.quality import fill, key_of
from ray_rec.config import RunConfig, load_config
from ray_rec.datasets.purchases import week_start_ms
from ray_rec.evaluation.backtest import TOPICS, read_window
from ray_rec.evaluation.habits import Apprentice, Habit
from ray_rec.evaluation.prequential import Options, Prequential
from ray_rec.events.schema import EVENTS, ITEMS
from ray_rec.log.base import EventLog, open_log
from ray_rec.log.cut import cut
from ray_rec.log.window import Window

FOLDER = ROOT / "var" / "quality"
KEPT = FOLDER / "continual"
FIRST, ASKED, END = 33, 45, 51
"""Weeks from which all learn, from which they are asked, and before which that ends."""
RECORDS, QUERIES = 1_000, 40
"""Of a window: its records; the baskets asked for, and the exposures predicted, at most."""

ONLINE, PLAIN = "every 1,000", Habit(every=10, average=0.99)
HABITS = {
    "every 10,000": PLAIN,
    "every 100,000": replace(PLAIN, every=100),
    "never": replace(PLAIN, every=0),
    "never, counts frozen": replace(PLAIN, every=0, counts=False),
    "replay .5": replace(PLAIN, replay=10, ratio=0.5),
    "replay 1": replace(PLAIN, replay=10, ratio=1.0),
    "elastic 3": replace(PLAIN, elastic=3.0),
    "elastic 30": replace(PLAIN, elastic=30.0),
    "no average": replace(PLAIN, average=0.0),
    "average .999": replace(PLAIN, average=0.999),
    "refresh": replace(PLAIN, refresh=80),
}
"""By name in the tables; windows of 1,000 records."""


def main() -> int:
    """Run the seeds that are missing, then make numbers and curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1))
    parser.add_argument("--again", action="store_true", help="run what was run too")
    given = parser.parse_args()
    told: dict[str, Any] = {"habits": {name: asdict(habit) for name, habit in HABITS.items()}}
    told |= {"weeks": [FIRST, ASKED, END], "records": RECORDS, "queries": QUERIES}
    for seed in given.seeds:
        answered = partial(_answers, seed)
        measure(KEPT / f"{seed}.npz", key_of(told, _config(seed)), answered, given.again)
    summarise(KEPT, ASKED, END, told | {"config": lasting(_config(0).to_dict())})
    put_tables("continual", section())
    return 0


def _replayed(seed: int) -> Prequential:
    """Take all models through the stretch."""
    config, counts = _config(seed), dict.fromkeys((*TOPICS, "dead"), 0)
    torch.set_num_threads(config.training.torch_threads)
    fill({"weeks": (1, 53)}, config, None)
    with open_log(config.log) as log:
        known = [_catalogue(log), *_windows(log, FIRST, ASKED, 1)]
        asked = _windows(log, ASKED, END, len(known))
        told = sum(any(start < end for start, end in w.ranges[EVENTS].values()) for w in known)
        options = Options(max_queries=QUERIES, warmup_windows=told)
        run = Prequential(config, options, rankers=())
        apprentices = {
            name: Apprentice(config, habit, run.encoder, run.store, QUERIES)
            for name, habit in HABITS.items()
        }
        run.beside.update(apprentices)
        for window in known:
            run.step(window, read_window(log, window, counts))
        assert run.is_warm
        for apprentice in apprentices.values():
            apprentice.go_on(run.model)
        for window in asked:
            run.step(window, read_window(log, window, counts))
            sys.stderr.write(f"seed {seed}: window {window.number}\n" * (window.number % 50 == 0))
    return run


def _config(seed: int) -> RunConfig:
    places = (f"log=sqlite:///{FOLDER}/complete_journey.db", f"state_dir={KEPT}/{seed}")
    changes = (*places, f"learner.seed={seed}")
    return load_config(ROOT / "serve" / "demo.toml", changes, environ={})


def _catalogue(log: EventLog) -> Window:
    """Return a window of all items and nothing else: what they have in common is found at once."""
    at = {topic: log.offsets_at(topic, week_start_ms(FIRST)) for topic in TOPICS}
    ranges = {topic: {p: (o, o) for p, o in places.items()} for topic, places in at.items()}
    return Window(0, ranges | {ITEMS: {p: (0, o) for p, o in at[ITEMS].items()}})


def _windows(log: EventLog, first: int, end: int, number: int) -> Iterator[Window]:
    """Yield the windows of some weeks, the last not among them."""
    start, stop = (
        {topic: log.offsets_at(topic, week_start_ms(week)) for topic in TOPICS}
        for week in (first, end)
    )
    return cut(log, TOPICS, RECORDS, start, stop, first_number=number)


def _answers(seed: int) -> dict[str, Any]:
    """Return what all models answered, when windows ended, and how many rows each learned."""
    run = _replayed(seed)
    pupils = {ONLINE: run.model, **run.beside}
    learned = [pupil for pupil in pupils.values() if isinstance(pupil, Apprentice)]
    return {
        **answers(pupils),
        "until": np.array([[w["window"], w["until_ms"] or 0] for w in run.windows]),
        "rows": [-1, *(pupil.rows for pupil in learned)],
    }


if __name__ == "__main__":
    sys.exit(main())
