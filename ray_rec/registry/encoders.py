"""Text encoders that learned: folders that open as pretrained ones do, named by their digest."""

from collections.abc import Collection, Mapping

from ray_rec.registry.store import Store

_FOLDER, _MARKER = "encoders", "config.json"


class Encoders:
    """The folders `encoders/<digest>/` of a registry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Store the files of an encoder, once."""
        if not self._store.exists(f"{_FOLDER}/{digest}/{_MARKER}"):
            self._store.write_folder(f"{_FOLDER}/{digest}", files, marker=_MARKER)

    def read(self, digest: str) -> dict[str, bytes] | None:
        """Return the files of an encoder by name, None when it is not here."""
        folder = f"{_FOLDER}/{digest}"
        files = {name: self._store.read(f"{folder}/{name}") for name in self._store.names(folder)}
        if files.get(_MARKER) is None:
            return None
        return {name: data for name, data in files.items() if data is not None}

    def remove_all_but(self, digests: Collection[str]) -> None:
        """Remove the encoders that no version names any more."""
        for name in self._store.names(_FOLDER):
            if name not in digests:
                self._store.remove_folder(f"{_FOLDER}/{name}", marker=_MARKER)
