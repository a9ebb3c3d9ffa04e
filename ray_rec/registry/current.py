"""CURRENT: the one small file that says which version answers, replaced atomically."""

from dataclasses import asdict, dataclass

import msgspec

from ray_rec.errors import RegistryError
from ray_rec.registry.store import Store

_FILE = "CURRENT"


@dataclass(frozen=True)
class Current:
    """The version in service; `held`: a rollback holds, new versions do not replace it."""

    version: int
    held: bool


class CurrentFile:
    """Reads and replaces CURRENT of a registry; writers hold the versions' lock."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Current | None:
        """Return what it says, None before the first version was promoted."""
        raw = self._store.read(_FILE)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=Current)
        except msgspec.MsgspecError as error:
            raise RegistryError(
                f"CURRENT of {self._store.url} is damaged ({error}): "
                "roll back to a version to rewrite it"
            ) from None

    def replace(self, current: Current) -> Current:
        """Let another version answer from here on."""
        self._store.write(_FILE, msgspec.json.encode(asdict(current)))
        return current

    def advance(self, version: int) -> None:
        """Take a newer version into service, unless a rollback holds."""
        current = self.read()
        if current is None or (not current.held and version > current.version):
            self.replace(Current(version, held=False))
