"""What a replica knows of its users, for pages and support; nothing here is on the hot path."""

import threading

import msgspec

from ray_rec.features.state import FeatureState
from ray_rec.serving.shelf import details_of

_LOOKED_AT = 500


class PastEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of a user's history."""

    item_id: str
    event_type: str
    ts: int
    title: str | None = None


class Profiles:
    """Reads users out of the state, under the lock that guards it."""

    def __init__(self, state: FeatureState, lock: threading.Lock) -> None:
        self._state = state
        self._lock = lock

    def users(self, num: int) -> list[str]:
        """Return `num` user ids, active last first, out of the 500 that were first seen last."""
        found = []
        with self._lock:
            for user_id in reversed(self._state.histories.index.ids[-_LOOKED_AT:]):
                if user_id is None:
                    continue
                ts = self._state.histories.last(user_id).ts
                if len(ts):
                    found.append((int(ts[-1]), user_id))
        return [user_id for _, user_id in sorted(found, reverse=True)[:num]]

    def history(self, user_id: str, num: int) -> list[PastEvent]:
        """Return a user's last `num` events, newest first."""
        catalogue, types = self._state.catalogue, self._state.config.event_types
        with self._lock:
            history = self._state.histories.last(user_id)
        tokens = zip(*(column[::-1][:num].tolist() for column in history), strict=True)
        return [
            PastEvent(
                str(catalogue.item_id[row]),
                types[kind],
                ts,
                details_of(catalogue, row).get("title"),
            )
            for row, kind, ts in tokens
        ]
