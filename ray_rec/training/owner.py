"""The one owner of the streaming state: applies each window once, keeps its result for a retry."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.errors import StateError
from ray_rec.events.decode import dead_letters
from ray_rec.events.schema import DEAD_LETTER
from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import WindowExamples, assign_steps
from ray_rec.features.state import FeatureState
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.window import Window


@dataclass(frozen=True)
class WindowSide:
    """What every worker needs of a window beside its share of the examples.

    `window.examples` is empty; `held_out` holds the rows of held-out users (never learned);
    `num_steps` counts the optimizer steps of the window over all workers; `offsets` are the next
    to be read after it.
    """

    window: WindowExamples
    held_out: pa.Table
    num_steps: int
    offsets: dict[str, Offsets]


@dataclass(frozen=True)
class _Result:
    examples: pa.Table
    side: WindowSide


class StateOwner:
    """Holds the FeatureState of a stream; results are kept from the last committed checkpoint on.

    Args:
        log_url: where dead letters go.
        features: configuration of the state.
        rows_per_step: example rows of one optimizer step.
    """

    def __init__(self, log_url: str, features: FeatureConfig, rows_per_step: int) -> None:
        self._log = open_log(log_url)
        self._config = features
        self._rows_per_step = rows_per_step
        self._state: FeatureState | None = None
        self._results: dict[int, _Result] = {}

    def resume(self, number: int, tables: dict[str, pa.Table] | None) -> None:
        """Be ready for window `number`: with what is held if that reaches it, or from `tables`."""
        if self._state is not None and (number in self._results or number == self._state.number):
            return
        self._results.clear()
        if tables is None:
            self._state = FeatureState(self._config)
        else:
            self._state = FeatureState.restore(self._config, tables)
        if self._state.number != number:
            raise StateError(
                f"the checkpoint before window {number} holds state for window "
                f"{self._state.number}; remove it so that the run continues from an older one"
            )

    def apply(
        self, window: Window, tables: Mapping[str, pa.Table], dead: list[pa.Table]
    ) -> pa.Table:
        """Return the examples of `window`, applying it if it is the next one (EXAMPLES_SCHEMA)."""
        if window.number in self._results:
            return self._results[window.number].examples
        if self._state is None:
            raise StateError(f"window {window.number} came before the state was restored")
        for rows in dead:
            if rows.num_rows:
                self._log.append(DEAD_LETTER, dead_letters(rows))
        made = self._state.apply(window, tables)
        self._results[window.number] = self._make(made, self._state.offsets)
        return self._results[window.number].examples

    def _make(self, made: WindowExamples, offsets: dict[str, Offsets]) -> _Result:
        rows = assign_steps(made.examples, self._rows_per_step)
        held_out = rows.filter(rows["held_out"])
        learned = rows.filter(pc.invert(rows["held_out"]))
        steps = pc.max(learned["step"]).as_py() if learned.num_rows else None
        side = WindowSide(
            window=replace(made, examples=rows.slice(0, 0)),
            held_out=held_out,
            num_steps=0 if steps is None else steps + 1,
            offsets={topic: dict(parts) for topic, parts in offsets.items()},
        )
        return _Result(learned, side)

    def side(self, number: int) -> WindowSide:
        """Return what workers need of window `number`, once applied, beside its examples."""
        if number not in self._results:
            raise StateError(f"window {number} is not held; it was never applied or is committed")
        return self._results[number].side

    def snapshot(self, number: int) -> dict[str, pa.Table] | None:
        """Return the state before window `number`, or None when the owner is already further."""
        if self._state is None or self._state.number != number:
            return None
        return self._state.snapshot()

    def commit(self, number: int) -> None:
        """Forget the results of windows before `number`: a checkpoint now stands for them."""
        self._results = {k: result for k, result in self._results.items() if k >= number}
