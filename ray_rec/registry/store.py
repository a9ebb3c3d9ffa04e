"""Files of a registry on any fsspec URL, written so that a reader never sees half of one.

Local folders are written beside their place, flushed to disk and renamed. Object stores replace
single objects atomically, so there the marker file, written last, makes a folder visible.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ray_rec.errors import ConfigError, RegistryError

_EXAMPLES = "e.g. ./var/registry, file:///data/registry or s3://bucket/registry"


class Store:
    """Bytes under one root; paths are relative, parts joined by '/'."""

    def __init__(self, url: str) -> None:
        """Open the URL's file system; ConfigError when there is none for it."""
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"registry URL {url!r}: {error}; {_EXAMPLES}") from None
        self.url = url
        self.local = isinstance(self._fs, LocalFileSystem)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else str(self._root)

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None when there is no such file."""
        try:
            with self._fs.open(self._path(path), "rb") as file:
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryError(f"cannot read {path} of registry {self.url}: {error}") from error

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return bool(self._fs.exists(self._path(path)))

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder, [] when there is no such folder."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def is_file(self) -> bool:
        """Whether the root is a plain file."""
        return bool(self._fs.isfile(self._root))

    def write(self, path: str, data: bytes) -> None:
        """Replace one file atomically and durably."""
        try:
            if not self.local:
                self._fs.pipe_file(self._path(path), data)
                return
            target = Path(self._path(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            _write_synced(beside, data)
            os.replace(beside, target)
            _sync_folder(target.parent)
        except OSError as error:
            raise RegistryError(f"cannot write {path} of registry {self.url}: {error}") from error

    def write_folder(self, path: str, files: Mapping[str, bytes], marker: str) -> None:
        """Write a folder whose `marker` file makes it visible; nothing of it is seen before."""
        try:
            if self.local:
                self._write_local_folder(Path(self._path(path)), files)
                return
            for name in sorted(files, key=lambda name: name == marker):
                self._fs.pipe_file(self._path(f"{path}/{name}"), files[name])
        except OSError as error:
            raise RegistryError(f"cannot write {path} of registry {self.url}: {error}") from error

    def _write_local_folder(self, target: Path, files: Mapping[str, bytes]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        beside.mkdir()
        for name, data in files.items():
            _write_synced(beside / name, data)
        _sync_folder(beside)
        if target.exists():  # without its marker: what an interrupted removal left
            shutil.rmtree(target)
        os.rename(beside, target)
        _sync_folder(target.parent)

    def remove(self, path: str) -> None:
        """Remove one file, if it is there."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(path))

    def remove_folder(self, path: str, marker: str) -> None:
        """Remove a folder, its marker first, so that a half-removed one is not seen."""
        full = self._path(path)
        if self._fs.exists(f"{full}/{marker}"):
            self._fs.rm_file(f"{full}/{marker}")
        self._fs.rm(full, recursive=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Exclude other writers of `name` on this host; object stores have one by agreement."""
        if not self.local:
            yield
            return
        with open(self._path(f".{name}.lock"), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
