"""What a window has the workers learn: its own rows at once, or kept ones again, or none yet.

What was given to learning is kept as far as windows to come learn it again.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.config import RunConfig
from ray_rec.features.arrays import Int64
from ray_rec.features.examples import WindowExamples, assign_steps
from ray_rec.log.window import Passes, Window
from ray_rec.training.course import Stretch
from ray_rec.training.epochs import num_steps, shuffled, targets
from ray_rec.training.gathered import Gathered
from ray_rec.training.moments import Moments
from ray_rec.training.plans import PlanStore
from ray_rec.training.rehearsal import Rehearsal


@dataclass(frozen=True)
class Lesson:
    """What the workers learn with a window.

    Attributes:
        rows: to be learned, with their steps (EXAMPLES_SCHEMA).
        held_out: rows of people who are never learned from.
        num_steps: over all workers.
        replayed: how many of the rows are replayed beside those of the window.
        gathered: items [n] of the events that passes to come learn.
        stretch: of a window of such passes.
    """

    rows: pa.Table
    held_out: pa.Table
    num_steps: int
    replayed: int = 0
    gathered: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    stretch: Stretch | None = None


class Lessons:
    """Makes lessons of what windows give, and keeps what is learned again."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._rows_per_step = config, config.learner.rows_per_step
        self._rehearsal, self._gathered = Rehearsal.of(config), Gathered.of(config)
        self._plans = PlanStore(f"{config.state_dir}/plans")

    def make(self, window: Window, made: WindowExamples) -> Lesson:
        """Return what is learned with a window that gave `made`.

        Raises:
            StateError: a window that the plan names is not kept.
        """
        if window.passes is not None and window.repeats:
            return self._again(window, window.passes, made)
        rows = assign_steps(made.examples, self._rows_per_step)
        held_out = rows.filter(rows["held_out"])
        learned = rows.filter(pc.invert(rows["held_out"]))
        if window.gathers:
            self._gathered.put(made)
            return Lesson(learned.slice(0, 0), held_out, 0, gathered=targets(learned))
        last = pc.max(learned["step"]).as_py() if learned.num_rows else -1
        if self._config.training.replay_windows:
            self._rehearsal.put(window.number, learned)
        replayed = self._rehearsal.draw(window, learned.num_rows, last + 1)
        both = pa.concat_tables([learned, replayed])
        return Lesson(both, held_out, last + 1, replayed.num_rows)

    def _again(self, window: Window, passes: Passes, made: WindowExamples) -> Lesson:
        """Return all rows of the windows that a plan repeats, in an order drawn by its number."""
        windows = [self._gathered.get(number) for number in window.replay]
        # a window of a pass gives no rows of its own, as a rule
        every = pa.concat_tables([made.examples, *(each.examples for each in windows)])
        rows = shuffled(every, self._rows_per_step, window.number)
        half_lives_days = self._config.features.half_lives_days
        moments = Moments.through(windows, len(made.popularity), half_lives_days)
        return Lesson(
            rows=rows,
            held_out=every.filter(every["held_out"]),
            num_steps=num_steps(rows.num_rows, self._rows_per_step),
            stretch=Stretch(moments, (passes.at - 1) / passes.of, passes.at / passes.of),
        )

    def forget(self, oldest: int) -> None:
        """Drop what neither the `oldest` checkpoint nor what follows it may learn again."""
        training, before = self._config.training, self._plans.get(oldest - 1)
        needed = oldest - (training.replay_horizon if training.replay_windows else 0)
        self._rehearsal.forget(min(needed, oldest if before is None else before.oldest_needed))
