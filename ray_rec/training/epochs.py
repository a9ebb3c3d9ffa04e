"""Learning a bounded past several times over, in an order drawn anew each time.

A stream is seen once, in the order of time. A shop that starts with a long log, and an offline
comparison, may go through it several times: rows of like length share a step, each query is asked
with the popularity of its own time, what an item's own vector weighs is settled beforehand, and
rates come down to 0 at the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import Int64, arrow, lists, mix, numbers
from ray_rec.features.examples import EXAMPLES_SCHEMA, WindowExamples, row_keys
from ray_rec.training.course import Stretch
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments

Told = Callable[[int, Metrics], None]
"""Told (passes done, the losses of the last) after each pass."""


def num_steps(num_rows: int, rows_per_step: int) -> int:
    """Return the steps of one pass."""
    return math.ceil(num_rows / rows_per_step)


def learned(examples: pa.Table) -> pa.Table:
    """Return the rows of people who are not held out."""
    return examples.filter(arrow(~numbers(examples, "held_out").astype(np.bool_)))


def targets(rows: pa.Table) -> Int64:
    """Return the items [n] of the events that rows are learned for."""
    return lists(rows, "target_item")[0].astype(np.int64)


def study(
    learner: Learner,
    made: WindowExamples,
    half_lives_days: Sequence[float],
    rows_per_step: int,
    passes: int,
    tell: Told | None = None,
) -> None:
    """Take all steps of so many passes; the learner has observed the window's items.

    Nothing is held out and none is left out: who looks for the best pass asks when it is told.

    Raises:
        Diverged: as `Learner.learn`.
    """
    learner.count(targets(learned(made.examples)))
    moments = Moments.through([made], len(made.popularity), half_lives_days)
    for number in range(passes):
        # negatives are drawn by the popularity of the end
        again = replace(made, number=made.number + number, popularity=moments.popularity[-1])
        rows = shuffled(made.examples, rows_per_step, again.number)
        steps = num_steps(rows.num_rows, rows_per_step)
        stretch = Stretch(moments, number / passes, (number + 1) / passes)
        losses = learner.learn(again, rows, steps, stretch=stretch)
        if tell is not None:
            tell(number + 1, losses)


def shuffled(examples: pa.Table, rows_per_step: int, number: int) -> pa.Table:
    """Return the learned rows by step: of like length within a step, all else drawn by `number`.

    The draw is a hash of each row's identity: the same in any process. Within a step rows are in
    the order of the log.
    """
    examples = learned(examples)
    drawn = mix(row_keys(examples), np.full(examples.num_rows, number))
    length = lists(examples, "token_item")[1]
    order = np.lexsort((drawn, length))
    group = np.arange(len(order)) // rows_per_step
    # a group's place in the pass: the rank of a hash of its first row
    rank = np.argsort(np.argsort(drawn[order[::rows_per_step]], kind="stable"), kind="stable")
    step = np.empty(len(order), np.int64)
    step[order] = rank[group]
    keys = [numbers(examples, name) for name in ("offset", "partition", "topic_code")]
    place = np.lexsort((*keys, step))
    column = examples.schema.get_field_index("step")
    field = EXAMPLES_SCHEMA.field("step")
    return examples.set_column(column, field, arrow(step, pa.int32())).take(place)
