"""The owners of users: actors of the state's owner, which shares each window out among them.

They live as long as it does: when it dies Ray ends them with it, and it starts others. One that
dies alone is rebuilt empty, says so when it is asked, and is given its users with all the others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from ray_rec.config import RunConfig
from ray_rec.errors import StateError, StateLost
from ray_rec.features.config import FeatureConfig
from ray_rec.features.users import Chain, Gained, Share, UserState, tables_of

_RESTORE_RETRIES = 3
"""Times that giving an owner its users is tried anew if it dies; nothing else may be."""


class UserOwnerActor:
    """Holds the users of one owner of several."""

    def __init__(self, config: FeatureConfig, num_owners: int) -> None:
        self._config, self._num_owners = config, num_owners
        self._users: UserState | None = None

    def restore(self, chains: Sequence[Chain], watermark_ms: int) -> None:
        """Hold what the chains tell, whatever was held before."""
        self._users = None  # two at once would take twice the memory
        self._users = UserState.restore(self._config, chains, watermark_ms, self._num_owners)

    def apply(self, share: Share) -> Gained:
        """Apply what a window brings to these users."""
        return self._held().apply(share)

    def tell(self, whole: bool) -> dict[str, pa.Table]:
        """Return all tables, or what changed since they were told last."""
        return tables_of(self._held().parts, whole)

    def _held(self) -> UserState:
        if self._users is None:
            raise StateError("this owner of users was rebuilt and was not given them again")
        return self._users


class RemoteOwner:
    """A UserOwner that is an `actor`. Its calls raise StateLost when what it held is gone."""

    def __init__(self, actor: Any, name: str) -> None:
        self.actor, self._name = actor, name

    def restore(self, chains: Sequence[Chain], watermark_ms: int) -> Callable[[], None]:
        """Begin to; tried anew if the actor dies of it, as it holds nothing before."""
        restoring = self.actor.restore.options(max_task_retries=_RESTORE_RETRIES)
        return self._later(restoring.remote(chains, watermark_ms))

    def apply(self, share: Share) -> Callable[[], Gained]:
        """Begin to; once and no more."""
        return self._later(self.actor.apply.remote(share))

    def tell(self, whole: bool) -> Callable[[], dict[str, pa.Table]]:
        """Begin to; once and no more, as changes are told once."""
        return self._later(self.actor.tell.remote(whole))

    def _later(self, result: Any) -> Callable[[], Any]:
        def wait() -> Any:
            try:
                return ray.get(result)
            except RayError as error:
                raise StateLost(
                    f"{self._name} is lost ({error}); the run goes back to its last checkpoint"
                ) from error

        return wait


def start_user_owners(config: RunConfig) -> list[RemoteOwner]:
    """Return fresh owners of users, none when the state's owner is to hold all itself."""
    num = config.training.state_owners
    if num == 1:
        return []
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(UserOwnerActor)
    return [
        RemoteOwner(actor.remote(config.features, num), f"owner {n} of {num} of the users")
        for n in range(num)
    ]
