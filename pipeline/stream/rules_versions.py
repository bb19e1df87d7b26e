"""What the topic `rules` says: versions of rules folders, as records, and back into folders.

Keys are `tenant/path` with a file's bytes as value (none: the file is gone), and `tenant/` with the
version's manifest, written last: its number, and every file with its hash. A version is complete
when all files of the manifest are there with their hashes; before that nobody uses it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from pipeline.errors import UsageError
from pipeline.logs import get_logger
from pipeline.rulebook.folder import NAME

KEPT = 2
"""How many versions of a tenant stay on a worker's disk: another process may read the older one."""
_LENGTH_MAX = 255
_log = get_logger(__name__)


class Manifest(msgspec.Struct, frozen=True):
    """One version of a tenant's rules. `sequence` grows by one with each; `files` are paths with
    the SHA-256 of their bytes.
    """

    version: str
    sequence: int
    files: dict[str, str]


class Publication(NamedTuple):
    """What a folder changes on the topic; `records` are to be written in their order."""

    manifest: Manifest
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    records: tuple[tuple[str, bytes | None], ...]


class _File(NamedTuple):
    raw: bytes
    digest: str


_decode = msgspec.json.Decoder(Manifest).decode


class RulesVersions:
    """The topic as read so far. It holds the last bytes of every file of every tenant."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, _File]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._offsets: dict[str, int] = {}  # of the manifests

    def take(self, key: str, value: bytes | None, offset: int = 0) -> None:
        """Take one record. One that cannot be ours is logged and passed over."""
        tenant, slash, path = key.partition("/")
        if not slash or not NAME.fullmatch(tenant) or (path and not is_path(path)):
            _log.warning("a record of the rules' topic is passed over: no such key", key=key[:200])
        elif not path:
            self._take_manifest(tenant, value)
            self._offsets[tenant] = offset
        elif value is None:
            self._files.get(tenant, {}).pop(path, None)
        else:
            self._files.setdefault(tenant, {})[path] = _File(value, _digest(value))

    def tenants(self) -> list[str]:
        """Return the tenants that have rules there."""
        return sorted(self._manifests)

    def manifest(self, tenant: str) -> Manifest | None:
        """Return a tenant's newest version, complete or not."""
        return self._manifests.get(tenant)

    def newer(self, versions: Mapping[str, str]) -> list[int]:
        """Return the offsets of the manifests of other versions than these, by tenant."""
        return [
            self._offsets[tenant]
            for tenant, manifest in self._manifests.items()
            if versions.get(tenant) != manifest.version
        ]

    def missing(self, tenant: str) -> list[str]:
        """Return the files that a tenant's newest version still lacks."""
        there = self._files.get(tenant, {})
        return [
            path
            for path, digest in self._manifests[tenant].files.items()
            if path not in there or there[path].digest != digest
        ]

    def contents(self, tenant: str) -> dict[str, bytes]:
        """Return the files of a tenant's newest version, which is complete."""
        there = self._files.get(tenant, {})
        return {path: there[path].raw for path in self._manifests[tenant].files}

    def publication(
        self, tenant: str, version: str, contents: Mapping[str, bytes]
    ) -> Publication | None:
        """Return what has to be written so that these files are the tenant's newest version; None:
        they are. UsageError: a path that cannot be on the topic.
        """
        bad = [path for path in contents if not is_path(path)]
        if bad:
            raise UsageError(f"{bad[0]!r} cannot be published; rename it")
        there = self._files.get(tenant, {})
        before = self._manifests.get(tenant)
        files = {path: _digest(contents[path]) for path in sorted(contents)}
        if before is not None and before.files == files and not self.missing(tenant):
            return None
        added = tuple(path for path in files if path not in there)
        changed = tuple(
            path for path in files if path in there and there[path].digest != files[path]
        )
        removed = tuple(sorted(there.keys() - files.keys()))
        manifest = Manifest(version, before.sequence + 1 if before is not None else 1, files)
        records: list[tuple[str, bytes | None]] = [
            (f"{tenant}/{path}", contents[path]) for path in (*added, *changed)
        ]
        records += [(f"{tenant}/{path}", None) for path in removed]
        records.append((f"{tenant}/", msgspec.json.encode(manifest)))
        return Publication(manifest, added, changed, removed, tuple(records))

    def _take_manifest(self, tenant: str, value: bytes | None) -> None:
        if value is None:
            self._manifests.pop(tenant, None)
            return
        try:
            manifest = _decode(value)
        except msgspec.MsgspecError as error:
            _log.warning("rules without a manifest that can be read", tenant=tenant, why=str(error))
            return
        if not all(map(is_path, manifest.files)):
            _log.warning("rules whose manifest names a path that cannot be", tenant=tenant)
            return
        self._manifests[tenant] = manifest


class VersionFolders:
    """Makes folders of complete versions, each once, below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._given: dict[str, Manifest] = {}
        self._waiting: dict[str, Manifest] = {}

    def news(self, versions: RulesVersions) -> dict[str, Path | None]:
        """Return the tenants whose newest version is complete and was not returned before, with
        its folder; None where a tenant's rules are gone. What is not complete is said once.
        """
        found: dict[str, Path | None] = {}
        for tenant in versions.tenants():
            manifest = versions.manifest(tenant)
            assert manifest is not None, "a tenant is known by its manifest"
            if manifest == self._given.get(tenant):
                continue
            missing = versions.missing(tenant)
            if missing:
                if manifest != self._waiting.get(tenant):
                    _log.warning(
                        "published rules are not complete; the version before stays",
                        tenant=tenant,
                        rules=manifest.version,
                        missing=missing[:10],
                    )
                self._waiting[tenant] = manifest
                continue
            found[tenant] = materialise(self._root, tenant, manifest, versions.contents(tenant))
            self._given[tenant] = manifest
        for tenant in [given for given in self._given if versions.manifest(given) is None]:
            del self._given[tenant]
            found[tenant] = None
        return found


def is_path(path: str) -> bool:
    """Return whether a path stays inside of the folder that it is written to."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and "/".join(parts) == path
        and all(
            part not in {".", "..", "/"} and len(part.encode()) <= _LENGTH_MAX for part in parts
        )
        and not any(character in path for character in "\\\0")
    )


def materialise(root: Path, tenant: str, manifest: Manifest, contents: Mapping[str, bytes]) -> Path:
    """Write a version into a folder of its own below `root`; return it when all is there. Versions
    that are older than the one before are removed.
    """
    home = root / tenant
    home.mkdir(parents=True, exist_ok=True)
    digest = _digest(msgspec.json.encode(manifest))[:12]
    folder = home / f"{manifest.sequence:08d}-{digest}"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=".", dir=home))
        try:
            for path, raw in contents.items():
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(raw)
            _move(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    others = sorted(each for each in home.iterdir() if each.name < folder.name and each.is_dir())
    for old in [each for each in others if not each.name.startswith(".")][: -(KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _move(made: Path, folder: Path) -> None:
    """Give a folder its name; another process may have made the same."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
