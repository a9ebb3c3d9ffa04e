"""Versions of the model on any fsspec URL: full or delta, never rewritten; CURRENT names one."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields

import pyarrow as pa
import torch

from ray_rec.errors import RegistryError, VersionConflict, VersionMissing
from ray_rec.model.changes import Changes, Rows
from ray_rec.registry.current import Current, CurrentFile
from ray_rec.registry.encoders import Encoders
from ray_rec.registry.files import decode_version, encode_version, flat
from ray_rec.registry.manifest import Draft, Manifest, content_digest, parse_manifest
from ray_rec.registry.series import Series, sha256
from ray_rec.registry.snapshots import Snapshot, Snapshots
from ray_rec.registry.store import Store
from ray_rec.registry.version import Version, assembled

_MARKER = "registry.json"
_MARK = b'{"registry": "ray_rec", "layout": 1}\n'


class Registry:
    """Publish, follow, roll back and prune versions.

    One process publishes versions at a time and one snapshots; any number read. Files live under
    `versions/<k>/`, `snapshots/<k>/`, `encoders/<digest>/` and `CURRENT`.

    Attributes:
        encoders: text encoders that learned; one is stored before the version that names it.
    """

    def __init__(self, url: str, create: bool = False) -> None:
        """Open the registry at `url`; with `create`, make one where there is nothing yet.

        Raises:
            RegistryError: nothing is there, or something that is not a registry.
        """
        self.url = url
        self._store = Store(url)
        self._versions = Series(self._store, "versions", parse_manifest)
        self._current = CurrentFile(self._store)
        self._snapshots = Snapshots(self._store)
        self.encoders = Encoders(self._store)
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
        tensors: Changes,
        rows: Sequence[str],
        draft: Draft,
        promote: bool = True,
    ) -> Manifest:
        """Store a version, then make it CURRENT if `promote` and nothing holds.

        Publishing the same content again changes nothing but may promote it; CURRENT never goes
        back to an older version here. A version whose gate failed is kept and marked.

        Args:
            version: its number.
            tensors: all by name; of a delta those that are not as in its base, by table `Rows`.
            rows: item_id of each row; of a delta of those that its base does not have.
            draft: what else is known of it; a delta has a `base`.
            promote: whether it may be served.

        Raises:
            VersionConflict: the version exists with other content.
            VersionMissing: what a delta builds on is not there.
            VersionCorrupt: what a delta builds on has other content than it was made for.
        """
        if draft.base is None and any(isinstance(change, Rows) for change in tensors.values()):
            raise RegistryError(f"version {version} holds rows of a table: name its base")
        named = flat(tensors)
        digest = content_digest(named, rows, draft.offsets, draft.config, draft.base)
        with self._store.lock("versions"):
            manifest = self._existing(version, digest)
            if manifest is None:
                promote = promote and draft.gate.passed and self._has_base(version, draft)
                manifest = self._write(version, named, rows, draft, promote, digest)
            if promote and draft.gate.passed and manifest.promoted:
                self._current.advance(version)
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

    def _has_base(self, version: int, draft: Draft) -> bool:
        """Whether a version can be loaded once it is written.

        One that is made again after newer ones may build on what was pruned since; it is written
        all the same, so that it can be compared, and not promoted.
        """
        if draft.base is None:
            return True
        try:
            self._versions.check_base(version, draft.base)
        except VersionMissing:
            if max(self.versions(), default=version) > version:
                return False
            raise
        return True

    def _write(
        self,
        version: int,
        named: Mapping[str, torch.Tensor],
        rows: Sequence[str],
        draft: Draft,
        promote: bool,
        digest: str,
    ) -> Manifest:
        files = encode_version(named, rows)
        num_before = 0 if draft.base is None else draft.base.num_items
        manifest = Manifest(
            **{part.name: getattr(draft, part.name) for part in fields(Draft)},
            version=version,
            kind="full" if draft.base is None else "delta",
            created_at=time.time_ns() // 1_000_000,
            promoted=promote,
            num_items=num_before + len(rows),
            files={name: sha256(data) for name, data in files.items()},
            digest=digest,
        )
        self._versions.write(version, files, manifest.to_json())
        return manifest

    def current(self) -> Current | None:
        """Return the version in service, None before the first was promoted."""
        return self._current.read()

    def manifest(self, version: int) -> Manifest:
        """Return a version's manifest; VersionMissing when it was never published or was pruned."""
        return self._versions.manifest(version)

    def load(self, version: int, have: Version | None = None) -> Version:
        """Return a version, every file of it checked against the digests of the manifests.

        Deltas are read from the newest full version on, or from `have`, a loaded one, where they
        build on it. What has not changed since `have` is shared with it.

        Raises:
            VersionMissing: it does not exist, or one that it builds on is gone.
            VersionCorrupt: a file is missing or has other bytes than were published, or a delta's
                base has other content than it was made for.
        """
        known = None if have is None else have.manifest.as_base()
        chain = self._versions.chain(version, known)
        manifest = chain[-1][1]
        if have is not None and manifest.as_base() == known:
            return have
        start = have if have is not None and chain[0][1].base is not None else None
        parts = [decode_version(self._versions.read(*link)) for link in chain]
        return assembled(start, parts, manifest)

    def versions(self) -> list[int]:
        """Return all complete versions, oldest first, including those that failed the gate."""
        return self._versions.numbers()

    def rollback(self, to: int | None = None) -> Current:
        """Serve an older version and hold it until `release`; by default the one before CURRENT.

        Raises:
            RegistryError: there is nothing to go back to, or `to` failed the gate.
        """
        with self._store.lock("versions"):
            target = self._before_current() if to is None else self.manifest(to).version
            if not self.manifest(target).promoted:
                raise RegistryError(f"version {target} did not pass the gate and cannot be served")
            return self._current.replace(Current(target, held=True))

    def _before_current(self) -> int:
        current = self.current()
        older = [v for v in self.versions() if current is not None and v < current.version]
        for version in reversed(older):
            if self.manifest(version).promoted:
                return version
        raise RegistryError(
            f"registry {self.url} has no older version that passed the gate; "
            f"it has {self._versions.known()}"
        )

    def release(self) -> Current | None:
        """Lift a rollback's hold: the newest version that passed the gate is served again."""
        with self._store.lock("versions"):
            for version in reversed(self.versions()):
                if self.manifest(version).promoted:
                    self._current.replace(Current(version, held=False))
                    break
        return self.current()

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions, CURRENT, the one before it, and their bases.

        Encoders that none of them names go too. Return which versions were removed.
        """
        with self._store.lock("versions"):
            stay = set(self.versions()[-keep:] if keep > 0 else [])
            current = self.current()
            if current is not None:
                stay.add(current.version)
                with suppress(RegistryError):
                    stay.add(self._before_current())
            removed = self._versions.remove_all_but(stay)
            self.encoders.remove_all_but({self.manifest(v).encoder for v in self.versions()})
            return removed

    def publish_snapshot(
        self,
        number: int,
        tables: Mapping[str, pa.Table],
        offsets: Mapping[str, Mapping[int, int]],
        base: int | None = None,
        also: Collection[int] = (),
    ) -> None:
        """Store the feature state before window `number`; see `Snapshots.publish`."""
        with self._store.lock("snapshots"):
            self._snapshots.publish(number, tables, offsets, base, also)

    def latest_snapshot(self) -> Snapshot | None:
        """Return the newest state snapshot that is whole, None when there is none."""
        return self._snapshots.latest()

    def snapshot(self, number: int) -> Snapshot | None:
        """Return the state before window `number`, None when no whole snapshot of it is there."""
        return self._snapshots.get(number)
