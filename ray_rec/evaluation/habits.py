"""Models that go on learning from one stream in different ways, asked the same in each window.

The windows, the state and the questions are everybody's, so that two models differ in nothing but
when and how their weights learn. All go on from what one of them had learned.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.evaluation.pupil import Pupil
from ray_rec.features.arrays import Float32, arrow, numbers
from ray_rec.features.examples import WindowExamples
from ray_rec.log.window import Window
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import Servable
from ray_rec.model.text import TextStore
from ray_rec.training.rehearsal import Rehearsal, rehearsed


@dataclass(frozen=True)
class Habit:
    """How a model learns on, in windows of the stream.

    Attributes:
        every: it learns so many windows at a time, each as if it had come alone; 0: none any more.
        replay: older windows drawn beside each one, as `training.replay_windows`.
        horizon: how far back they lie, as `training.replay_horizon`.
        ratio: of replayed to new rows at most, as `training.replay_ratio`.
        elastic: as `learner.elastic`; a version is what came of one time of learning.
        average: as `learner.average`.
        refresh: after so many windows the model is drawn anew and learns the past; 0: never.
        past: the newest windows that it then learns.
        counts: whether popularity goes on; if not it stays what it was at the beginning, too.
    """

    every: int = 1
    replay: int = 0
    horizon: int = 300
    ratio: float = 0.5
    elastic: float = 0.0
    average: float = 0.0
    refresh: int = 0
    past: int = 300
    counts: bool = True

    def __post_init__(self) -> None:
        """Reject values that could not work, naming the key."""
        for key in ("every", "replay", "refresh"):
            if getattr(self, key) < 0:
                raise ConfigError(f"habit {key} is {getattr(self, key)}; it must be 0 or more")


class Apprentice(Pupil):
    """A pupil that keeps what it is given, goes on from another one's weights, and has a habit.

    Until `go_on` it learns nothing and answers nothing. Arguments are those of `Pupil`, and

    Args:
        habit: how it learns.
    """

    def __init__(
        self,
        config: RunConfig,
        habit: Habit,
        encoder: TextEncoder,
        store: TextStore,
        max_exposures: int,
    ) -> None:
        learner = replace(config.learner, elastic=habit.elastic, average=habit.average)
        super().__init__(replace(config, learner=learner), encoder, store, max_exposures)
        self._habit = habit
        self._rehearsal = Rehearsal(f"{config.state_dir}/examples", habit.ratio)
        self._past: list[tuple[WindowExamples, pa.Table]] = []
        self._done = self._refreshed = 0  # windows of the past
        self._on, self._frozen = False, np.zeros((0, 0), np.float32)
        self._answers: Servable | None = None
        self.updates = self.rows = 0

    def go_on(self, teacher: Pupil) -> None:
        """Go on from what a pupil knows, after the windows that both were given."""
        self._learner.load(teacher.state())
        self._learner.published()
        self._done = self._refreshed = len(self._past)
        self._on, self._frozen = True, self._past[-1][0].popularity

    def observe(self, items: pa.Table) -> None:
        """Take new and changed items (WINDOW_ITEMS_SCHEMA), once it has begun."""
        if self._on and items.num_rows:
            super().observe(items)
            self._answers = None

    def popularity(self, made: WindowExamples) -> Float32:
        """Return the popularity that it is asked with: of now, or of the beginning."""
        return made.popularity if self._habit.counts else self._frozen

    def servable(self) -> Servable:
        """Return the model as it answers now; the same one until it has learned again."""
        if self._answers is None:
            self._answers = super().servable()
        return self._answers

    def learn(self, made: WindowExamples, rows: pa.Table) -> dict[str, float]:
        """Keep a window; learn what was kept when it is time to; return the last one's losses."""
        self._past.append((made, rows))
        if self._habit.replay:
            learned = rows.filter(arrow(numbers(rows, "step") >= 0))
            self._rehearsal.put(made.number, learned)
        every = self._habit.every
        if not (self._on and every) or len(self._past) - self._done < every:
            return {}
        begin = self._done
        if self._habit.refresh and len(self._past) - self._refreshed >= self._habit.refresh:
            begin = self._draw_anew()
        losses: dict[str, float] = {}
        for older, its_rows in self._past[begin:]:
            losses = self._study(older, self._with_replayed(older, its_rows))
        self._done = len(self._past)
        self._learner.published()
        self._answers, self.updates = None, self.updates + 1
        return losses

    def _draw_anew(self) -> int:
        """Begin with new weights and all items; return the first window to learn."""
        self._refreshed = len(self._past)
        self._learner = self._new()
        for made, _ in self._past:
            super().observe(made.items)
        return max(0, len(self._past) - self._habit.past)

    def _with_replayed(self, made: WindowExamples, rows: pa.Table) -> pa.Table:
        """Return a window's rows by step, with those that its plan would have replayed."""
        step, count = numbers(rows, "step"), self._habit.replay
        new, steps = int((step >= 0).sum()), int(step.max(initial=-1)) + 1
        names = rehearsed(made.number, count, self._habit.horizon, lambda _: True)
        replayed = self._rehearsal.draw(Window(made.number, {}, replay=names), new, steps)
        self.rows += new + replayed.num_rows
        both = pa.concat_tables([rows, replayed])
        return both.take(np.argsort(numbers(both, "step"), kind="stable"))
