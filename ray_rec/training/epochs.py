"""Learning a bounded past several times over, in an order drawn anew each time.

A stream is seen once, in the order of time. A shop that starts with a long log, and an offline
comparison, may go through it several times: rows of like length share a step, each query is asked
with the popularity of its own time, and what an item's own vector weighs is settled beforehand.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import arrow, lists, mix, numbers
from ray_rec.features.examples import EXAMPLES_SCHEMA, WindowExamples, row_keys
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments

WARMUP_SHARE = 0.1

Told = Callable[[int, Metrics], None]
"""Told (passes done, the losses of the last) after each pass."""


def one_cycle(config: LearnerConfig, num_rows: int, passes: int) -> LearnerConfig:
    """Return rates that warm up over a tenth of all steps and come down to 0 at their end.

    >>> made = one_cycle(LearnerConfig(rows_per_step=100), 1_950, 3)
    >>> made.schedule, made.warmup_steps, made.total_steps
    ('cosine', 6, 60)
    """
    total = max(2, num_steps(num_rows, config.rows_per_step) * passes)
    warmup = min(total - 1, round(WARMUP_SHARE * total))
    return replace(config, schedule="cosine", warmup_steps=warmup, total_steps=total)


def num_steps(num_rows: int, rows_per_step: int) -> int:
    """Return the steps of one pass."""
    return math.ceil(num_rows / rows_per_step)


def learned(examples: pa.Table) -> pa.Table:
    """Return the rows of people who are not held out."""
    return examples.filter(arrow(~numbers(examples, "held_out").astype(np.bool_)))


def study(
    learner: Learner,
    made: WindowExamples,
    moments: Moments,
    rows_per_step: int,
    passes: int,
    tell: Told | None = None,
) -> None:
    """Take all steps of so many passes; the learner has observed the window's items.

    Raises:
        Diverged: as `Learner.learn`.
    """
    learner.count(lists(learned(made.examples), "target_item")[0].astype(np.int64))
    for number in range(passes):
        rows = shuffled(made.examples, rows_per_step, number)
        steps = num_steps(rows.num_rows, rows_per_step)
        again = replace(made, number=made.number + number)
        losses = learner.learn(again, rows, steps, moments=moments, counted=True)
        if tell is not None:
            tell(number + 1, losses)


def shuffled(examples: pa.Table, rows_per_step: int, number: int) -> pa.Table:
    """Return the learned rows by step: of like length within a step, all else drawn by `number`.

    The draw is a hash of each row's identity: the same in any process.
    """
    examples = learned(examples)
    drawn = mix(row_keys(examples), np.full(examples.num_rows, number))
    length = lists(examples, "token_item")[1]
    order = np.lexsort((drawn, length))
    group = np.arange(len(order)) // rows_per_step
    # a group's place in the pass: the rank of a hash of its first row
    rank = np.argsort(np.argsort(drawn[order[::rows_per_step]], kind="stable"), kind="stable")
    step = rank[group]
    table = examples.take(order[np.argsort(step, kind="stable")])
    column = table.schema.get_field_index("step")
    return table.set_column(column, EXAMPLES_SCHEMA.field("step"), arrow(np.sort(step), pa.int32()))
