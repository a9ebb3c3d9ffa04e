"""A window: the only unit of work. Which offsets of which topics, and how they are to be learned.

Live streams, offline runs and backtests differ only in the windows that they take.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from ray_rec.errors import StateError
from ray_rec.log.base import Offsets, Ranges


@dataclass(frozen=True)
class Passes:
    """Several passes over a stretch of the log, and how far they have come with a window.

    The windows from `first` on are gathered: their rows are kept, and no weight moves. Then come
    `of` windows that learn them, as many in each pass, each naming gathered ones in its `replay`.
    """

    times: int
    """How often every row is learned."""
    first: int
    """Number of the first window that is gathered."""
    until: int = 0
    """Number of the first window after those gathered; 0 while there may be more."""
    at: int = 0
    """Which of the windows that learn this one is, from 1; 0 while windows are gathered."""
    of: int = 0
    patience: int = 0
    """So many passes in a row that are no better on held-out people end them, and the best one
    stays; 0 learns all and keeps the last."""
    ended: bool = False
    """Whether they ended so with this window."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to learn."""
        return self.ended or 0 < self.at == self.of

    @property
    def is_measured(self) -> bool:
        """Whether a pass ends here that is measured on held-out people."""
        return self.patience > 0 and self.at > 0 and not self.at % (self.of // self.times)

    @property
    def number(self) -> int:
        """Which pass this is, from 1; 0 before the first."""
        return 1 + (self.at - 1) * self.times // self.of if self.at else 0


@dataclass(frozen=True)
class Window:
    """Plan `number`: topic to partition to [start, end), and what else a repetition must know."""

    number: int
    ranges: Ranges
    idle: tuple[tuple[str, int], ...] = ()
    """(topic, partition) pairs that the watermark does not wait for."""
    advance_to_ms: int | None = None
    """Push the watermark at least to here: closes what an ended stream left open."""
    replay: tuple[int, ...] = ()
    """Numbers of older windows learned beside this one."""
    rate_scale: float = 1.0
    """Factor on the learning rate."""
    set_aside: bool = False
    """State advances, weights do not."""
    publish: Literal["none", "delta", "full"] = "none"
    """Whether a version is made after this window, and whether it stands alone."""
    lost: dict[str, Offsets] = field(default_factory=dict)
    """Topic to partition to the number of offsets before its range that retention had deleted."""
    passes: Passes | None = None
    """Which passes its rows are kept for, or its `replay` belongs to; None where it is learned at
    once."""

    @property
    def gathers(self) -> bool:
        """Whether its rows are kept to be learned later, several times."""
        return self.passes is not None and self.passes.at == 0

    @property
    def repeats(self) -> bool:
        """Whether it learns all rows of the windows in `replay`, and has none of its own."""
        return self.passes is not None and self.passes.at > 0 and bool(self.replay)

    @property
    def is_measured(self) -> bool:
        """Whether it ends a pass that is measured on held-out people."""
        return self.repeats and self.passes is not None and self.passes.is_measured

    @property
    def oldest_needed(self) -> int:
        """Number of the first window that those after this one learn in passes that are under way.

        Of the next window where there are none.
        """
        if self.passes is None or self.passes.is_over:
            return self.number + 1
        return self.passes.first

    @property
    def num_records(self) -> int:
        """Number of offsets covered; compaction may have left fewer records."""
        return sum(end - start for spans in self.ranges.values() for start, end in spans.values())

    @property
    def num_lost(self) -> int:
        """Number of offsets that retention had deleted before its ranges."""
        return sum(sum(parts.values()) for parts in self.lost.values())

    def ends(self) -> dict[str, Offsets]:
        """Return the offsets from which the next window goes on, for the partitions named here."""
        return {t: {p: end for p, (_, end) in spans.items()} for t, spans in self.ranges.items()}

    def to_json(self) -> str:
        """Encode as one line of JSON, the same for equal windows."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Decode; raise StateError for anything that is no window.

        >>> Window.from_json(Window(3, {"events": {0: (5, 9)}}, idle=(("events", 1),)).to_json())
        Window(number=3, ranges={'events': {0: (5, 9)}}, idle=(('events', 1),), \
advance_to_ms=None, replay=(), rate_scale=1.0, set_aside=False, publish='none', lost={}, \
passes=None)
        """
        try:
            plain: dict[str, Any] = json.loads(text)
            plain["ranges"] = _ranges(plain["ranges"])
            plain["idle"] = tuple((str(t), int(p)) for t, p in plain.get("idle", ()))
            plain["replay"] = tuple(int(k) for k in plain.get("replay", ()))
            plain["lost"] = {
                topic: {int(p): int(count) for p, count in parts.items()}
                for topic, parts in plain.get("lost", {}).items()
            }
            if plain.get("passes") is not None:
                plain["passes"] = Passes(**plain["passes"])
            return cls(**plain)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateError(f"not a window: {text[:200]!r} ({error})") from error


def _ranges(plain: Mapping[str, Mapping[str, list[int]]]) -> Ranges:
    return {
        topic: {int(p): (int(start), int(end)) for p, (start, end) in sorted(spans.items())}
        for topic, spans in plain.items()
    }
