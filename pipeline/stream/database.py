"""The file of the embedded log: its tables, how it is opened, and who may open it.

One writer at a time: a second process gets a UsageError that names the first. Readers of other
processes may look (`connect`), also while it is written.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x46554E49  # "FUNI"; `file` tells by it what this is.

# A record's place is one number, so that a topic lies together in the file and needs no index:
# the topic's id, then the last offset of the row. 2^45 offsets are 11 years at 100,000 a second.
OFFSET_BITS = 45

TABLES = """
CREATE TABLE topic (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  first INTEGER NOT NULL,        -- the first offset that is not deleted
  next INTEGER NOT NULL,         -- the next offset to give; never goes back
  bytes INTEGER NOT NULL
);
CREATE TABLE records (
  place INTEGER PRIMARY KEY,     -- topic << 45 | last offset of the row
  count INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  blob BLOB NOT NULL             -- MessagePack: [[key, value, headers], …]
);
CREATE TABLE position (
  topic TEXT NOT NULL,
  reader TEXT NOT NULL,          -- the consumer group: a stage, a sink's destination
  next INTEGER NOT NULL,         -- the next offset to read
  now_ms INTEGER NOT NULL,       -- a stage's time, which never goes back
  from_end INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,      -- when it moved
  PRIMARY KEY (topic, reader)
) WITHOUT ROWID;
CREATE TABLE state (
  stage TEXT NOT NULL,
  key TEXT NOT NULL,
  part TEXT NOT NULL,
  entry BLOB NOT NULL,           -- JSON: [key, part, value]
  PRIMARY KEY (stage, key, part)
) WITHOUT ROWID;
CREATE TABLE timer (
  stage TEXT NOT NULL,
  key TEXT NOT NULL,
  name TEXT NOT NULL,
  due_ms INTEGER NOT NULL,
  data BLOB NOT NULL,            -- JSON
  PRIMARY KEY (stage, key, name)
) WITHOUT ROWID;
CREATE INDEX timer_due ON timer (stage, due_ms, key, name);
"""

# Statements over many rows come in these sizes, so that few of them fill the statement cache.
# 128 rows of 5 values stay below 999, the limit of older SQLite builds.
_ROWS_AT_ONCE = (128, 32, 8, 2, 1)


def open_writer(path: Path, checkpoint_pages: int) -> sqlite3.Connection:
    """Return the connection that writes, its tables made. UsageError: the file is not ours."""
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.OperationalError as error:
        raise UsageError(f"Cannot open the log {path}: {error}") from None
    try:
        _prepare(connection, path, checkpoint_pages)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(f"Cannot open the log {path}: {error}") from None
    except UsageError:
        connection.close()
        raise
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads; it may be handed from thread to thread."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Raise UsageError where the file is no log, or of another version than this program's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise UsageError(f"{path} is not a log of Funicular; name another file")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"The log {path} has version {version}, this program reads {SCHEMA_VERSION}; "
            "use the program that wrote it, or another file"
        )


def _prepare(connection: sqlite3.Connection, path: Path, checkpoint_pages: int) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        # Only an empty file can be told so; without it the file never gets smaller.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        check_version(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages:d}")
    connection.execute(f"PRAGMA journal_size_limit = {checkpoint_pages * 4096 * 2:d}")
    if not tables:
        # One transaction, so that a process killed here leaves an empty file, not half a one.
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID:d}; "
            f"PRAGMA user_version = {SCHEMA_VERSION:d}; COMMIT;"
        )


class OwnerLock:
    """Held while a process has the log open for writing; the system gives it back at its death.

    It is a lock of SQLite's own on a file beside the log: that works on each system SQLite runs
    on, within one process too, and a forked child does not keep it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock of the log at `path`. UsageError: somebody has it."""
        lock_path = path.with_name(path.name + ".lock")
        try:
            self._connection = sqlite3.connect(
                lock_path, isolation_level=None, check_same_thread=False, timeout=0
            )
        except sqlite3.OperationalError as error:
            raise UsageError(f"Cannot lock the log {path}: {error}") from None
        try:
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("CREATE TABLE IF NOT EXISTS owner (pid INTEGER)")
            self._connection.execute("DELETE FROM owner")
            self._connection.execute("INSERT INTO owner VALUES (?)", (os.getpid(),))
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            pid = self._owner()
            self._connection.close()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise UsageError(f"Cannot lock the log {path}: {error}") from None
            raise UsageError(
                f"The log {path} is open in {pid}; stop that one, or name another file"
            ) from None

    def release(self) -> None:
        """Give the lock back."""
        self._connection.close()

    def _owner(self) -> str:
        try:
            row = self._connection.execute("SELECT pid FROM owner").fetchone()
        except sqlite3.DatabaseError:
            row = None
        return f"process {row[0]}" if row else "another process"


def write_rows(connection: sqlite3.Connection, head: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run `head (?, …), (?, …) …` over all rows, in as few steps as may be."""
    _in_steps(connection, head, rows, "")


def delete_rows(
    connection: sqlite3.Connection, table: str, columns: str, rows: Sequence[Sequence[Any]]
) -> None:
    """Delete the rows of a table whose `columns`, its key, are those given."""
    # Straight from VALUES, without SELECT, SQLite would not use the key: it reads the whole table.
    head = f"DELETE FROM {table} WHERE ({columns}) IN (SELECT * FROM (VALUES"  # noqa: S608 - ours
    _in_steps(connection, head, rows, "))")


def _in_steps(
    connection: sqlite3.Connection, head: str, rows: Sequence[Sequence[Any]], tail: str
) -> None:
    if not rows:
        return
    one = f"({', '.join('?' * len(rows[0]))})"
    for part in _split(rows):
        connection.execute(
            f"{head} {', '.join([one] * len(part))}{tail}",
            [value for row in part for value in row],
        )


def _split(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    start = 0
    for size in _ROWS_AT_ONCE:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
