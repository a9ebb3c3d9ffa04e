"""Numbered folders, each whole or a change of an earlier one: versions and snapshots alike.

A folder's manifest is written last and has the digest of each file. One that builds on another
names that one's digest, so that what is read through a chain is what was written, or an error.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ray_rec.errors import RegistryError, VersionCorrupt, VersionMissing
from ray_rec.registry.store import Store

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Base:
    """What a change builds on: number and content digest.

    `num_items`: rows that a version has there, so that a delta's own begin after them.
    """

    number: int
    digest: str
    num_items: int = 0


class Manifest(Protocol):
    """What has to be known of a folder."""

    @property
    def base(self) -> Base | None:
        """What it builds on, None when it is whole."""

    @property
    def digest(self) -> str:
        """Digest of its content and, through the base's digest, of all below it."""

    @property
    def files(self) -> Mapping[str, str]:
        """Sha256 of each file, hex, by name."""


M = TypeVar("M", bound=Manifest)


class Series(Generic[M]):
    """The folders under `path`, whose last part is the plural of what they hold.

    Args:
        store: where they are.
        path: `versions` or `snapshots`.
        parse: reads a manifest; the second argument says where it was found.
    """

    def __init__(self, store: Store, path: str, parse: Callable[[bytes, str], M]) -> None:
        self._store, self._path, self._parse = store, path, parse
        self._what = path.removesuffix("s")

    def numbers(self) -> list[int]:
        """Return the numbers of all complete folders, oldest first."""
        return [
            int(name)
            for name in self._store.names(self._path)
            if name.isdigit() and self._store.exists(f"{self._path}/{name}/{MANIFEST}")
        ]

    def known(self) -> str:
        """Return the newest numbers as text for a message."""
        return ", ".join(map(str, self.numbers()[-10:])) or "none"

    def manifest(self, number: int) -> M:
        """Return a manifest; VersionMissing when it was never written or was removed."""
        path = f"{self._folder(number)}/{MANIFEST}"
        raw = self._store.read(path)
        if raw is None:
            raise VersionMissing(
                f"registry {self._store.url} has no {self._what} {number}; it has {self.known()}"
            )
        return self._parse(raw, path)

    def chain(self, number: int, have: Base | None = None) -> list[tuple[int, M]]:
        """Return what has to be read for `number`, oldest first: from a whole one on, or `have`.

        Raises:
            VersionMissing: it is not there, or one that it builds on is gone.
            VersionCorrupt: one that it builds on has other content than it was made for.
        """
        links = [(number, self.manifest(number))]
        while (base := links[-1][1].base) is not None and base != have:
            links.append((base.number, self._base(links[-1][0], base)))
        return links[::-1]

    def check_base(self, number: int, base: Base) -> None:
        """Raise as `chain` does unless a folder `number` on top of `base` could be read."""
        if base.number >= number:
            raise RegistryError(
                f"{self._what} {number} cannot build on {base.number}: name an earlier one"
            )
        self._base(number, base)
        self.chain(base.number)

    def _base(self, number: int, base: Base) -> M:
        where = f"{self._what} {number} of {self._store.url} builds on {base.number}"
        try:
            manifest = self.manifest(base.number)
        except VersionMissing:
            raise VersionMissing(
                f"{where}, which is gone: use another {self._what}, or publish a full one"
            ) from None
        if manifest.digest != base.digest:
            raise VersionCorrupt(
                f"{where} with content {base.digest[:12]}, the registry's has "
                f"{manifest.digest[:12]}: use another {self._what}, or publish a full one"
            )
        return manifest

    def built_on(self, numbers: Iterable[int]) -> set[int]:
        """Return `numbers` and all that they build on, as far as it is there."""
        found: set[int] = set()
        for number in numbers:
            at: int | None = number
            while at is not None and at not in found:
                found.add(at)
                at = self._below(at)
        return found

    def _below(self, number: int) -> int | None:
        with suppress(RegistryError):  # what cannot be read holds nothing else in its place
            base = self.manifest(number).base
            return None if base is None else base.number
        return None

    def write(self, number: int, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Write a folder, its manifest last."""
        self._store.write_folder(
            self._folder(number), {**files, MANIFEST: manifest}, marker=MANIFEST
        )

    def read(self, number: int, manifest: M) -> dict[str, bytes]:
        """Return the files of a folder; VersionCorrupt when one is not as it was written."""
        return {name: self._checked(number, manifest, name) for name in manifest.files}

    def _checked(self, number: int, manifest: M, name: str) -> bytes:
        path = f"{self._folder(number)}/{name}"
        data = self._store.read(path)
        seen = None if data is None else sha256(data)
        if data is None or seen != manifest.files[name]:
            raise VersionCorrupt(
                f"{path} of {self._store.url} has sha256 {seen}, its manifest says "
                f"{manifest.files[name]}: use another {self._what}"
            )
        return data

    def remove_all_but(self, numbers: Iterable[int]) -> list[int]:
        """Remove all folders that `numbers` do not build on; return which."""
        stay = self.built_on(numbers)
        removed = [number for number in self.numbers() if number not in stay]
        for number in reversed(removed):  # a change goes before what it builds on
            self._store.remove_folder(self._folder(number), marker=MANIFEST)
        return removed

    def _folder(self, number: int) -> str:
        return f"{self._path}/{number:08d}"


def sha256(data: bytes) -> str:
    """Return the digest of a file, hex."""
    return hashlib.sha256(data).hexdigest()
