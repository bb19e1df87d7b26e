"""The state of one stage's partition, beside the worker: a RocksDB that holds only what was
committed.

In come changes as they stand in the changelog, with the changelog's offset behind them, in one
write; out go the parts of a key and the timers that are due. It is a copy: whatever is wrong with
it, it is deleted and made again from the changelog.

It has no write-ahead log. What is in memory goes to a file as a whole, now and then and when it is
closed; after a kill the store is an earlier state with its own checkpoint, and the changelog tells
the rest. With such a log, files that were cut or overwritten could be opened with a hole: what an
older list of files lacks, and then the newer log on top.

Rows, all with the keys of `kafka_changes`: `p…` a part, `t…` a timer, `d<due><key><zero><name>` the
same timer by its time, `m` how far the changelog is in here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch, WriteOptions

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.ports import PAST_ASIDE, DueTimer
from pipeline.stream.kafka_changes import Change, quote, read_key, unquote
from pipeline.stream.settings import MIB

NEVER = 1 << 62
_FORMAT = 1
_META = b"m"
_DUE_MAX = (1 << 63) - 1
FLUSH_MS = 10_000
"""How much of the changelog, in milliseconds of its time, is read again after a kill, about."""
CACHE_BYTES = 16 * MIB
"""What all stores of a process keep of what they have read. RocksDB gives each store a cache of
its own, of 32 MiB: of as many as a worker has partitions and stages."""

_log = get_logger(__name__)


class StoreError(Exception):
    """The store cannot be read or written; it is to be made again from the changelog."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far the changelog is in the store: all before offset `next`, of the topic with this id.

    `time_ms` is when the store was last known to be at the changelog's end.
    """

    next: int = 0
    time_ms: int = 0
    topic_id: str = ""
    format: int = _FORMAT


_read_checkpoint = msgspec.json.Decoder(Checkpoint).decode


class PartitionStore:
    """One partition's store. One thread uses it. Every method may raise StoreError."""

    def __init__(self, folder: Path, buffer_bytes: int, flush_ms: int = FLUSH_MS) -> None:
        """Open it; one that cannot be opened is deleted. RetryableError: nor can a new one."""
        self.folder = folder
        self._buffer_bytes = buffer_bytes
        self._flush_ms = flush_ms
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment] # its stub errs
        self.checkpoint = Checkpoint()
        self.next_due_ms = NEVER
        # No timer is due before this: rows that were deleted before it are not looked at again.
        self._floor = b"d"
        # What `load` reads with, from its first call to the next write: it sees one state.
        self._rows: Any = None
        self._open()

    def _open(self) -> None:
        if self.folder.exists():
            try:
                self._connect()
            except StoreError as error:
                _log.warning(
                    "a state store is broken and will be made again from the changelog",
                    folder=str(self.folder),
                    why=str(error),
                )
                self._remove()
            else:
                return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connect()
        except (OSError, StoreError) as error:
            raise RetryableError(
                f"Cannot keep state in {self.folder}: {error}", code="state_store"
            ) from None

    def _connect(self) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(self._buffer_bytes)
        options.set_max_open_files(64)
        options.set_keep_log_file_num(2)
        options.set_max_background_jobs(2)
        options.set_block_based_table_factory(_tables())
        with _guarded():
            self._db = Rdict(str(self.folder), options)
        try:
            with _guarded():
                written = self._db.get(_META)
                self.checkpoint = _read_checkpoint(written) if written else Checkpoint()
                if self.checkpoint.format != _FORMAT:
                    raise StoreError(f"its format is {self.checkpoint.format}, not {_FORMAT}")
                self._floor = b"d"
                self._find_next_due()
        except StoreError:
            self._shut()
            raise
        self._flushed_ms = self.checkpoint.time_ms

    def clear(self) -> None:
        """Delete all that is in it. RetryableError: a new one cannot be made."""
        self._remove()
        self.checkpoint = Checkpoint()
        self.next_due_ms = NEVER
        self._open()

    def _remove(self) -> None:
        if hasattr(self, "_db"):
            self._shut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, key: str) -> dict[str, Any]:
        """Return the parts of a key, but for those aside."""
        return self._load(key, PAST_ASIDE.encode(), b"")

    def load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        """Return those parts of a key that are aside and whose names begin so."""
        wanted = quote(prefix).encode()
        return self._load(key, wanted, wanted)

    def _load(self, key: str, first: bytes, wanted: bytes) -> dict[str, Any]:
        prefix = b"p" + quote(key).encode() + b"#"
        start = len(prefix)
        wanted = prefix + wanted
        names: list[str] = []
        values: list[bytes] = []
        # Each message of a new device comes by here: a `with` and a generator cost as much as
        # RocksDB does, and JSON in one piece is read faster than in several.
        rows = self._rows
        try:
            if rows is None:
                rows = self._rows = self._db.iter()
            rows.seek(prefix + first)
            while rows.valid():
                row = rows.key()
                if not row.startswith(wanted):
                    break
                names.append(unquote(row[start:].decode()))
                values.append(rows.value())
                rows.next()
            else:
                rows.status()
            return dict(zip(names, orjson.loads(b"[" + b",".join(values) + b"]"), strict=True))
        except Exception as error:
            self._rows = None
            raise StoreError(str(error)) from error
        finally:
            # An error's traceback keeps this frame, and a store is locked while it is read.
            del rows

    def due(self, now_ms: int, limit: int) -> list[DueTimer]:
        """Return up to `limit` timers that are due, in order of time, key and name."""
        if self.next_due_ms > now_ms:
            return []
        found: list[DueTimer] = []
        with _guarded():
            for row, _ in self._scan(self._floor, b"d"):
                key, _, name = row[9:].partition(b"\0")
                due_ms, data = orjson.loads(self._value(b"t" + key + b"##" + name))
                if due_ms > now_ms or len(found) == limit:
                    break
                found.append(DueTimer(unquote(key.decode()), unquote(name.decode()), due_ms, data))
        return found

    def apply(self, changes: Iterable[Change], following: int, time_ms: int, topic_id: str) -> None:
        """Write changes that are committed, and that the changelog is in here up to `following`."""
        batch = WriteBatch(raw_mode=True)
        # What this very batch did to timers: the store shows it only when it is written.
        timers: dict[bytes, bytes | None] = {}
        checkpoint = Checkpoint(following, time_ms, topic_id)
        self._rows = None
        with _guarded():
            for key, value in changes:
                separator = key.index(b"#")
                if key.startswith(b"##", separator):
                    self._apply_timer(batch, timers, key, separator, value)
                elif value is None:
                    batch.delete(b"p" + key)
                else:
                    batch.put(b"p" + key, value)
            batch.put(_META, orjson.dumps(msgspec.to_builtins(checkpoint)))
            self._db.write(batch, self._unlogged)
            self.checkpoint = checkpoint
            if time_ms - self._flushed_ms >= self._flush_ms:
                self._flushed_ms = time_ms
                self._db.flush(wait=False)
            if timers:
                self._find_next_due()

    def _apply_timer(
        self,
        batch: WriteBatch,
        timers: dict[bytes, bytes | None],
        key: bytes,
        separator: int,
        value: bytes | None,
    ) -> None:
        row = b"t" + key
        before = timers[row] if row in timers else self._db.get(row)
        if before is not None:
            batch.delete(_due_row(before, key, separator))
        timers[row] = value
        if value is None:
            batch.delete(row)
            return
        due = _due_row(value, key, separator)
        self._floor = min(self._floor, due)
        batch.put(row, value)
        batch.put(due, b"")

    def parts(self) -> Iterator[tuple[str, str, Any]]:
        """Yield all that is in it: key, part, value."""
        with _guarded():
            for row, value in self._scan(b"p", b"p"):
                key, part, _ = read_key(row[1:])
                yield key, part, orjson.loads(value)

    def close(self, time_ms: int | None = None) -> None:
        """Close it; with `time_ms` it is at the changelog's end as of then."""
        if time_ms is not None:
            with _log_instead(self.folder):
                last = self.checkpoint
                self.apply((), last.next, max(time_ms, last.time_ms), last.topic_id)
        self._shut()

    def _shut(self) -> None:
        self._rows = None
        with _log_instead(self.folder):
            self._db.close()

    def _find_next_due(self) -> None:
        self.next_due_ms = NEVER
        for row, _ in self._scan(self._floor, b"d"):
            self._floor = row
            self.next_due_ms = int.from_bytes(row[1:9])
            return

    def _scan(self, first: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._db.iter()
        try:
            rows.seek(first)
            while rows.valid():
                row = rows.key()
                if not row.startswith(prefix):
                    return
                yield row, rows.value()
                rows.next()
            rows.status()
        finally:
            # The frame outlives this in an error's traceback, and a store is locked while it is
            # read.
            del rows

    def _value(self, row: bytes) -> bytes:
        value: bytes | None = self._db.get(row)
        if value is None:
            raise StoreError(f"a timer is in the order of time, but not there: {row!r}")
        return value


@cache
def _tables() -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(CACHE_BYTES))
    return tables


def _due_row(value: bytes, key: bytes, separator: int) -> bytes:
    due_ms: int = min(max(orjson.loads(value)[0], 0), _DUE_MAX)
    return b"d" + due_ms.to_bytes(8) + key[:separator] + b"\0" + key[separator + 2 :]


@contextmanager
def _guarded() -> Iterator[None]:
    """Make a StoreError of whatever is wrong with the store; RocksDB's errors have no class."""
    try:
        yield
    except (StoreError, RetryableError):
        raise
    except Exception as error:
        raise StoreError(str(error)) from error


@contextmanager
def _log_instead(folder: Path) -> Iterator[None]:
    """Log what is wrong with a store that is not needed any more."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - RocksDB's errors have no class
        _log.warning("a state store did not close well", folder=str(folder), why=str(error))
