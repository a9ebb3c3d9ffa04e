"""Windows that were decided, kept before anyone sees them, so that a repetition reads the same.

`THOUSANDS/NUMBER.json` is a plan as it was decided, `THOUSANDS/NUMBER.REVISION.json` as it was
amended later; no file is ever rewritten.
"""

from collections.abc import Iterator

from ray_rec.errors import ConfigError, StateError
from ray_rec.log.window import Window
from ray_rec.registry.store import Store

FOLDER_PLANS = 1000
"""Plans in one folder: a list of the newest stays short after a million windows."""

_MOST_KNOWN = 1000


class PlanStore:
    """Plans by number under one fsspec URL, one small JSON file each; written by one planner.

    Raises:
        ConfigError: there is no file system for the URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = Store(url)
        self._known: dict[int, tuple[Window | None, int]] = {}

    def get(self, number: int) -> Window | None:
        """Return plan `number` as amended last, or None where it was never decided."""
        return self._newest(number)[0]

    def first(self, number: int) -> Window | None:
        """Return plan `number` as it was decided, whatever it was amended to since."""
        return self._read(number, 0)

    def put(self, window: Window) -> None:
        """Keep `window` durably; readers see either nothing or the whole plan."""
        self._write(window, 0)

    def amend(self, window: Window) -> None:
        """Keep a revision of a plan durably beside what it was; `get` returns it from now on.

        A plan may change until a version that has learned it is published.

        Raises:
            StateError: there is no plan of this number.
        """
        before, revision = self._newest(window.number)
        if before is None:
            raise StateError(f"{self.url} has no plan {window.number} that could be amended")
        if before != window:
            self._write(window, revision + 1)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of all plans, in order."""
        for folder in self._store.names(""):
            if folder.isdigit():
                names = self._store.names(folder)
                yield from sorted({int(name.split(".")[0]) for name in names if name[0] != "."})

    def prune(self, before: int) -> None:
        """Remove whole folders of plans that are all older than number `before`."""
        for folder in self._store.names(""):
            if folder.isdigit() and (int(folder) + 1) * FOLDER_PLANS <= before:
                self._store.remove_folder(folder, _name(int(folder) * FOLDER_PLANS, 0))

    def _newest(self, number: int) -> tuple[Window | None, int]:
        if number not in self._known:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            found, revision = self._read(number, 0), 0
            while found is not None and (later := self._read(number, revision + 1)) is not None:
                found, revision = later, revision + 1
            self._known[number] = (found, revision)
        return self._known[number]

    def _read(self, number: int, revision: int) -> Window | None:
        raw = self._store.read(f"{_folder(number)}/{_name(number, revision)}")
        return None if raw is None else Window.from_json(raw.decode())

    def _write(self, window: Window, revision: int) -> None:
        path = f"{_folder(window.number)}/{_name(window.number, revision)}"
        self._store.write(path, window.to_json().encode())
        self._known = {window.number: (window, revision)}


def check_plans(url: str) -> None:
    """Raise ConfigError unless there are plans at `url`, all from the first to the last."""
    numbers = list(PlanStore(url).numbers())
    missing = next((k for k, number in enumerate(numbers) if number != k), len(numbers))
    if not numbers:
        raise ConfigError(f"{url} holds no plans; expected the folder `plans` of a state_dir")
    if missing < len(numbers):
        raise ConfigError(f"{url} lacks plan {missing}, so the run cannot be repeated from it")


def _folder(number: int) -> str:
    return f"{number // FOLDER_PLANS:09d}"


def _name(number: int, revision: int) -> str:
    return f"{number:012d}.{revision}.json" if revision else f"{number:012d}.json"
