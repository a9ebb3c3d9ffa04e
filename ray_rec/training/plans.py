"""Windows that were decided, kept before anyone sees them, so that a repetition reads the same."""

from ray_rec.log.window import Window
from ray_rec.registry.store import Store


class PlanStore:
    """Plans by number under one fsspec URL, one small JSON file each; written once, by one planner.

    Raises:
        ConfigError: there is no file system for the URL.
    """

    def __init__(self, url: str) -> None:
        self._store = Store(url)
        self._known: dict[int, Window | None] = {}

    def get(self, number: int) -> Window | None:
        """Return plan `number`, or None where it was never decided."""
        if number not in self._known:
            raw = self._store.read(_path(number))
            self._known = {number: None if raw is None else Window.from_json(raw.decode())}
        return self._known[number]

    def put(self, window: Window) -> None:
        """Keep `window` durably; readers see either nothing or the whole plan."""
        self._store.write(_path(window.number), window.to_json().encode())
        self._known = {window.number: window}


def _path(number: int) -> str:
    return f"{number:012d}.json"
