"""Versions of the model on any fsspec URL: published whole, never rewritten, CURRENT names one."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import msgspec
import pyarrow as pa
import torch

from ray_rec.errors import RegistryError, VersionConflict, VersionCorrupt, VersionMissing
from ray_rec.registry.files import ROWS, TENSORS, decode_version, encode_version
from ray_rec.registry.manifest import Draft, Manifest, content_digest, parse_manifest
from ray_rec.registry.snapshots import Snapshot, Snapshots
from ray_rec.registry.store import Store

_MARKER = "registry.json"
_MARK = b'{"registry": "ray_rec", "layout": 1}\n'
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Current:
    """The version in service; `held`: a rollback holds, new versions do not replace it."""

    version: int
    held: bool


@dataclass(frozen=True)
class Version:
    """A loaded version: `rows[r]` is the item_id of row r of the item tensors."""

    tensors: dict[str, torch.Tensor]
    rows: list[str]
    manifest: Manifest


class Registry:
    """Publish, follow, roll back and prune versions.

    One process publishes at a time; any number read. Files live under `versions/<k>/`,
    `snapshots/<k>/` and `CURRENT`.
    """

    def __init__(self, url: str, create: bool = False) -> None:
        """Open the registry at `url`; with `create`, make one where there is nothing yet.

        Raises:
            RegistryError: nothing is there, or something that is not a registry.
        """
        self.url = url
        self._store = Store(url)
        self._snapshots = Snapshots(self._store)
        if self._store.read(_MARKER) is not None:
            return
        if self._store.is_file() or self._store.names(""):
            raise RegistryError(
                f"{url} is not a registry (it has no {_MARKER}): name a registry or an empty folder"
            )
        if not create:
            raise RegistryError(f"there is no registry at {url}: train a model first, or check it")
        self._store.write(_MARKER, _MARK)

    def publish(
        self,
        version: int,
        tensors: Mapping[str, torch.Tensor],
        rows: Sequence[str],
        draft: Draft,
        promote: bool = True,
    ) -> Manifest:
        """Store a version whole, then make it CURRENT if `promote` and nothing holds.

        Publishing the same content again changes nothing but may promote it; CURRENT never goes
        back to an older version here. A version whose gate failed is kept and marked.

        Raises:
            VersionConflict: the version exists with other content.
        """
        promote = promote and draft.gate.passed
        digest = content_digest(tensors, rows, draft.offsets, draft.config)
        with self._store.lock():
            manifest = self._existing(version, digest)
            if manifest is None:
                manifest = self._write(version, tensors, rows, draft, promote, digest)
            if promote and manifest.promoted:
                self._advance(version)
        return manifest

    def _existing(self, version: int, digest: str) -> Manifest | None:
        try:
            manifest = self.manifest(version)
        except VersionMissing:
            return None
        if manifest.digest != digest:
            raise VersionConflict(
                f"version {version} of {self.url} exists with content {manifest.digest[:12]}, not "
                f"{digest[:12]}: versions are never rewritten, use a fresh registry for a new run"
            )
        return manifest

    def _write(
        self,
        version: int,
        tensors: Mapping[str, torch.Tensor],
        rows: Sequence[str],
        draft: Draft,
        promote: bool,
        digest: str,
    ) -> Manifest:
        files = encode_version(tensors, rows)
        manifest = Manifest(
            **{**asdict(draft), "gate": draft.gate},
            version=version,
            created_at=time.time_ns() // 1_000_000,
            promoted=promote,
            num_items=len(rows),
            files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            digest=digest,
        )
        files[_MANIFEST] = manifest.to_json()
        self._store.write_folder(_folder(version), files, marker=_MANIFEST)
        return manifest

    def _advance(self, version: int) -> None:
        current = self.current()
        if current is None or (not current.held and version > current.version):
            self._set_current(Current(version, held=False))

    def _set_current(self, current: Current) -> None:
        self._store.write("CURRENT", msgspec.json.encode(asdict(current)))

    def current(self) -> Current | None:
        """Return the version in service, None before the first was promoted."""
        raw = self._store.read("CURRENT")
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=Current)
        except msgspec.MsgspecError as error:
            raise RegistryError(
                f"CURRENT of {self.url} is damaged ({error}): roll back to a version to rewrite it"
            ) from None

    def manifest(self, version: int) -> Manifest:
        """Return a version's manifest; VersionMissing when it was never published or was pruned."""
        path = f"{_folder(version)}/{_MANIFEST}"
        raw = self._store.read(path)
        if raw is None:
            raise VersionMissing(
                f"registry {self.url} has no version {version}; it has {self._known()}"
            )
        return parse_manifest(raw, path)

    def load(self, version: int) -> Version:
        """Read a version and check every file against the digests of its manifest.

        Raises:
            VersionMissing: it does not exist.
            VersionCorrupt: a file is missing or has other bytes than were published.
        """
        manifest = self.manifest(version)
        files = {name: self._checked(manifest, name) for name in (TENSORS, ROWS)}
        return Version(*decode_version(files), manifest)

    def _checked(self, manifest: Manifest, name: str) -> bytes:
        path = f"{_folder(manifest.version)}/{name}"
        data = self._store.read(path)
        seen = None if data is None else hashlib.sha256(data).hexdigest()
        if data is None or seen != manifest.files.get(name):
            raise VersionCorrupt(
                f"{path} of {self.url} has sha256 {seen}, its manifest says "
                f"{manifest.files.get(name)}: roll back to another version"
            )
        return data

    def versions(self) -> list[int]:
        """Return all complete versions, oldest first, including those that failed the gate."""
        return [
            int(name)
            for name in self._store.names("versions")
            if name.isdigit() and self._store.read(f"versions/{name}/{_MANIFEST}") is not None
        ]

    def _known(self) -> str:
        return ", ".join(map(str, self.versions()[-10:])) or "none"

    def rollback(self, to: int | None = None) -> Current:
        """Serve an older version and hold it until `release`; by default the one before CURRENT.

        Raises:
            RegistryError: there is nothing to go back to, or `to` failed the gate.
        """
        with self._store.lock():
            target = self._before_current() if to is None else self.manifest(to).version
            if not self.manifest(target).promoted:
                raise RegistryError(f"version {target} did not pass the gate and cannot be served")
            self._set_current(Current(target, held=True))
        return Current(target, held=True)

    def _before_current(self) -> int:
        current = self.current()
        older = [v for v in self.versions() if current is not None and v < current.version]
        for version in reversed(older):
            if self.manifest(version).promoted:
                return version
        raise RegistryError(
            f"registry {self.url} has no older version that passed the gate; it has {self._known()}"
        )

    def release(self) -> Current | None:
        """Lift a rollback's hold: the newest version that passed the gate is served again."""
        with self._store.lock():
            for version in reversed(self.versions()):
                if self.manifest(version).promoted:
                    self._set_current(Current(version, held=False))
                    break
        return self.current()

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions; CURRENT and the one before it always stay."""
        with self._store.lock():
            stay = set(self.versions()[-keep:] if keep > 0 else [])
            current = self.current()
            if current is not None:
                stay.add(current.version)
                with suppress(RegistryError):
                    stay.add(self._before_current())
            removed = [v for v in self.versions() if v not in stay]
            for version in removed:
                self._store.remove_folder(_folder(version), marker=_MANIFEST)
        return removed

    def publish_snapshot(
        self, number: int, tables: Mapping[str, pa.Table], offsets: Mapping[str, Mapping[int, int]]
    ) -> None:
        """Store the feature state before window `number`; see `Snapshots.publish`."""
        with self._store.lock():
            self._snapshots.publish(number, tables, offsets)

    def latest_snapshot(self) -> Snapshot | None:
        """Return the newest state snapshot that is whole, None when there is none."""
        return self._snapshots.latest()

    def snapshot(self, number: int) -> Snapshot | None:
        """Return the state before window `number`, None when no whole snapshot of it is there."""
        return self._snapshots.get(number)


def _folder(version: int) -> str:
    return f"versions/{version:08d}"
