"""The API's keys: a JSON file of their digests; a shown key in, its tenant and rights out.

A key's text, `fk_<id>_<secret>`, is shown once. Its secret is 256 random bits, so one SHA-256 is
enough: there is nothing to guess that a slow hash would make slower, and every request pays it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Literal, get_args

import msgspec

from pipeline.errors import UsageError
from pipeline.logs import get_logger

Right = Literal["read", "write", "downlink", "admin"]
"""`read`: attributes, downlinks, metrics; `write`: change them; `downlink`: only ask for
downlinks; `admin`: forget a device, replay and drop dead letters. None includes another."""
RIGHTS: tuple[str, ...] = get_args(Right)
KEYS_MAX = 10_000
NOTE_LENGTH_MAX = 200
CHECK_INTERVAL_S = 1.0
"""How often a running program looks whether the file has changed."""
PREFIX = "fk_"

_NOBODY = sha256(secrets.token_bytes(32)).hexdigest()
_log = get_logger(__name__)


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as it is stored: everything but its secret. `revoked_ms` None: it is in force."""

    id: str
    tenant: str
    rights: tuple[Right, ...]
    digest: str
    created_ms: int
    note: str = ""
    revoked_ms: int | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, tenant={self.tenant!r}, rights={self.rights!r})"


Keys = list[Key]


class _File(msgspec.Struct):
    keys: Keys = []
    version: int = 1


class KeyStore:
    """The keys in one file, which may be absent. Changes by other processes are seen within
    CHECK_INTERVAL_S. Thread-safe.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """UsageError: the file is there and cannot be read as keys. `path` None: no keys."""
        self._path = path
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._checked_s = clock_s()
        self._keys: dict[str, Key] = {}
        self._configured = False
        self._stamp = self._stamp_now()
        self._use(self._read())

    @property
    def configured(self) -> bool:
        """Whether there is, or ever was, a key. Revoking the last one opens nothing."""
        self._refresh()
        return self._configured

    def find(self, shown: str) -> Key | None:
        """Return the key in force whose text is `shown`; None: there is none. Takes as long for
        a wrong secret as for an unknown id.
        """
        self._refresh()
        key_id, secret = _split(shown)
        key = self._keys.get(key_id)
        expected = key.digest if key is not None else _NOBODY
        right = compare_digest(_digest(secret), expected)
        return key if right and key is not None and key.revoked_ms is None else None

    def list(self) -> Keys:
        """Return all keys, revoked ones too, oldest first."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda key: (key.created_ms, key.id))

    def create(self, tenant: str, rights: Iterable[str], note: str = "") -> tuple[Key, str]:
        """Store a new key; return it and its text, which cannot be had again.

        UsageError: no such right, no tenant, or the file cannot be written.
        """
        chosen = _rights(rights)
        if not tenant or "/" in tenant:
            raise UsageError(f"{tenant!r} is no tenant: its name is not empty and has no slash")
        if len(note) > NOTE_LENGTH_MAX:
            raise UsageError(f"the note is over {NOTE_LENGTH_MAX} characters")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = Key(
            id=key_id,
            tenant=tenant,
            rights=chosen,
            digest=_digest(secret),
            created_ms=self._now_ms(),
            note=note,
        )
        with self._changing() as keys:
            if len(keys) >= KEYS_MAX:
                raise UsageError(f"there are {KEYS_MAX} keys already, revoked ones counted")
            keys.append(key)
        return key, f"{PREFIX}{key_id}_{secret}"

    def revoke(self, key_id: str) -> Key:
        """Put a key out of force, for good. UsageError: there is no such key."""
        with self._changing() as keys:
            places = [place for place, key in enumerate(keys) if key.id == key_id]
            if not places:
                raise UsageError(f"there is no key {key_id!r}; see `funicular keys list`")
            key = keys[places[0]]
            if key.revoked_ms is None:
                key = keys[places[0]] = msgspec.structs.replace(key, revoked_ms=self._now_ms())
        return key

    @contextmanager
    def _changing(self) -> Iterator[Keys]:
        """Read the file, let the caller change its keys, write it anew; one process at a time."""
        if self._path is None:
            raise UsageError("there is no file for keys; set keys_file")
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with _locked(self._path.with_name(self._path.name + ".lock")):
                    keys = self._read()
                    yield keys
                    self._write(keys)
            except OSError as error:
                raise UsageError(f"cannot write {self._path}: {error.strerror}") from None
            self._stamp = self._stamp_now()
            self._use(keys)

    def _write(self, keys: Keys) -> None:
        """Replace the file in one step; a reader sees the old one or the new one."""
        assert self._path is not None
        content = msgspec.json.format(msgspec.json.encode(_File(keys=keys)))
        # mkstemp makes the file for its owner only (0600), before anything is in it.
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self) -> Keys:
        if self._path is None:
            return []
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"cannot read {self._path}: {error.strerror}") from None
        try:
            return msgspec.json.decode(content, type=_File).keys
        except (msgspec.MsgspecError, ValueError) as error:
            raise UsageError(
                f"{self._path} is not a file of keys ({error}); restore it, or move it away and"
                " create new keys"
            ) from None

    def _use(self, keys: Keys) -> None:
        self._keys = {key.id: key for key in keys}
        self._configured = self._configured or bool(keys)

    def _refresh(self) -> None:
        now_s = self._clock_s()
        if now_s - self._checked_s < CHECK_INTERVAL_S:
            return
        with self._lock:
            self._checked_s = now_s
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._use(self._read())
            except UsageError as error:
                # The keys that were read last stay in force: a half-done edit must not open or
                # close the API.
                _log.error("the file of keys is not readable; the last keys stay", error=str(error))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two `funicular keys` commands do not lose each other's key."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if _flock is not None:
            _flock(descriptor)
        yield
    finally:
        os.close(descriptor)


_flock: Callable[[int], None] | None
try:
    import fcntl
except ImportError:  # Windows has none; there, two commands at one moment may lose a key.
    _flock = None
else:

    def _flock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _rights(rights: Iterable[str]) -> tuple[Right, ...]:
    asked = list(rights)
    unknown = [right for right in asked if right not in RIGHTS]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no right; there are {', '.join(RIGHTS)}")
    if not asked:
        raise UsageError(f"a key needs at least one right of {', '.join(RIGHTS)}")
    return tuple(right for right in get_args(Right) if right in asked)


def _split(shown: str) -> tuple[str, str]:
    if not shown.startswith(PREFIX):
        return "", ""
    key_id, _, secret = shown[len(PREFIX) :].partition("_")
    return key_id, secret


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
