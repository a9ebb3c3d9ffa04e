"""A model of our own in a backtest: it answers what is asked in a window, then learns the window.

Beside the model of two tasks its single-task twins can be asked the same: alike in all but that one
of the two losses has no weight.
"""

from dataclasses import replace
from functools import partial

import pyarrow as pa
from torch import Tensor

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.ledger import Ledger
from ray_rec.evaluation.clicks.measures import Clicks
from ray_rec.features.arrays import Float32, arrow, numbers
from ray_rec.features.examples import WindowExamples
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import Servable
from ray_rec.model.text import TextStore
from ray_rec.training.learner import Learner

TWINS = {"recall-only": (0.0, 1.0), "click-only": (1.0, 0.0)}
"""Alpha and beta of each."""


def twin(config: RunConfig, name: str) -> RunConfig:
    """Return the configuration of the twin of one of `TWINS`."""
    alpha, beta = TWINS[name]
    model = replace(config.model, task_weights="fixed", alpha=alpha, beta=beta)
    return replace(config, model=model)


class Pupil:
    """A learner with its predictions that wait for labels, and what was judged of its answers.

    Args:
        config: of the run.
        encoder: one of its own where it learns; else it may be shared.
        store: where the vectors of an encoder that does not learn are kept.
        max_exposures: predict at most so many of a window's; 0: all.
    """

    def __init__(
        self, config: RunConfig, encoder: TextEncoder, store: TextStore, max_exposures: int
    ) -> None:
        self.ledger = Ledger()
        self.clicks = Clicks(config.features.num_outcomes, max_exposures)
        learns = config.encoder.learns
        self._vectors = encoder.encode if learns else partial(store.vectors, encode=encoder.encode)
        learning = encoder if learns else None
        self._new = partial(Learner, config.model, config.learner, encoder=learning)
        self._learner = self._new()

    def observe(self, items: pa.Table) -> None:
        """Take new and changed items (WINDOW_ITEMS_SCHEMA)."""
        if items.num_rows:
            texts = [str(text) for text in items["text"].to_pylist()]
            self._learner.observe(items, self._vectors(texts))

    def state(self) -> dict[str, Tensor]:
        """Return what another pupil can go on from."""
        return self._learner.state()

    def popularity(self, made: WindowExamples) -> Float32:
        """Return the popularity that a window's questions are answered with."""
        return made.popularity

    def servable(self) -> Servable:
        """Return the model as it answers now."""
        return self._learner.servable()

    def learn(self, made: WindowExamples, rows: pa.Table) -> dict[str, float]:
        """Learn a window's rows, but those of held-out users; return the mean losses.

        What comes of it counts as a version.
        """
        losses = self._study(made, rows)
        self._learner.published()
        return losses

    def _study(self, made: WindowExamples, rows: pa.Table) -> dict[str, float]:
        step = numbers(rows, "step")
        losses, num_steps = {}, int(step.max(initial=-1)) + 1
        if num_steps:
            learned = rows.filter(arrow(step >= 0))
            losses = self._learner.learn(made, learned, num_steps).summary()
            self._learner.renew_texts()
        self._learner.calibrate(rows.filter(rows["held_out"]))
        return losses
