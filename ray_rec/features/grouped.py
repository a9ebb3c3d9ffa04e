"""A state whose users several owners hold, so that they apply a window side by side.

What all users share stays in one place; results are those of one owner, whatever their number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import WindowExamples
from ray_rec.features.portions import (
    chains_for,
    chains_of,
    named,
    portions,
    shared_chain,
    together,
)
from ray_rec.features.shared import Shared, WindowPlan
from ray_rec.features.users import Chain, Gained, Share, tables_of
from ray_rec.features.watermark import Watermark

Result = TypeVar("Result")


class UserOwner(Protocol):
    """Holds some users, here or elsewhere. A call begins at once; what it returns waits for it."""

    def restore(self, chains: Sequence[Chain], watermark_ms: int) -> Callable[[], None]:
        """Hold what `UserState.restore` makes of the chains, whatever was held before."""

    def apply(self, share: Share) -> Callable[[], Gained]:
        """Do `UserState.apply`."""

    def tell(self, whole: bool) -> Callable[[], dict[str, pa.Table]]:
        """Return all tables, or what changed since they were told last."""


class GroupedState:
    """What FeatureState is to who applies windows; the owners are this one's alone.

    An exception out of `apply`, `snapshot` or `changes`, other than that a window is not the next
    one, leaves the state undefined: restore it from a snapshot.

    Args:
        config: as of each owner.
        owners: one or more.
        segments: what `snapshot` and all `changes` after it gave, of any number of owners, or of a
            FeatureState; None begins with nothing known.
    """

    def __init__(
        self, config: FeatureConfig, owners: Sequence[UserOwner], segments: Chain | None = None
    ) -> None:
        self._owners, self._shared = owners, Shared(config)
        chains: list[Chain] = []
        if segments is not None:
            chains = chains_of(segments)
            self._shared.restore(shared_chain(segments))
        num, reached = len(owners), self._shared.watermark.value_ms
        _all([each.restore(chains_for(n, num, chains), reached) for n, each in enumerate(owners)])

    @property
    def number(self) -> int:
        """The next window's."""
        return self._shared.progress.number

    @property
    def offsets(self) -> dict[str, dict[int, int]]:
        """From which offset of each topic and partition the log goes on."""
        return self._shared.progress.offsets

    @property
    def watermark(self) -> Watermark:
        """Until when all is in."""
        return self._shared.watermark

    def apply(self, window: WindowPlan, tables: Mapping[str, pa.Table]) -> WindowExamples:
        """Apply the next window as FeatureState does; examples come owner by owner.

        Raises StateError when the window is not the next one or goes back in the log.
        """
        begun = self._shared.begin(window, tables)
        parts = portions(begun.share, len(self._owners))
        calls = [o.apply(p.share) for o, p in zip(self._owners, parts, strict=True)]
        gained = together(begun.share, parts, _all(calls))
        return self._shared.finish(window, begun, gained)

    def snapshot(self) -> dict[str, pa.Table]:
        """Return everything as named tables, those of users by owner."""
        return self._tell(whole=True)

    def changes(self) -> dict[str, pa.Table]:
        """Return what changed since the last `snapshot` or `changes`, in tables named alike."""
        return self._tell(whole=False)

    def _tell(self, whole: bool) -> dict[str, pa.Table]:
        calls = [owner.tell(whole) for owner in self._owners]
        return tables_of(self._shared.parts, whole) | named(_all(calls))


def _all(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Wait for calls that are under way."""
    return [call() for call in calls]
