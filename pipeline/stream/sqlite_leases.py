"""Leases on the embedded log: the one process that has the log has all of them (`ports.Leases`).

In: records of sources, with their cursors. Out: both in one transaction. Cursors stand beside the
stages' state, under the room's name: they are no topic, and no retention touches them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

import orjson

from pipeline.errors import RetryableError
from pipeline.model.record import Outgoing
from pipeline.stream.database import connect
from pipeline.stream.leases import to_the_end
from pipeline.stream.sqlite import SqliteLog
from pipeline.stream.writeset import WriteSet

ROOM = "ingest"
PART = "cursor"


class EmbeddedLeases:
    """See `ports.Leases`."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[_EmbeddedLease]:
        """Return at once: nobody else has this log."""
        yield _EmbeddedLease(self._log, name)

    trouble = ""

    def owner(self, name: str) -> str:  # noqa: ARG002 - the port's shape
        """Return nobody: who asks has it."""
        return ""

    async def close(self) -> None:
        """Nothing is held outside of the log."""


class _EmbeddedLease:
    """See `ports.Lease`."""

    valid = True

    def __init__(self, log: SqliteLog, name: str) -> None:
        self._log = log
        self._name = name

    async def lost(self) -> None:
        """Never return."""
        await asyncio.get_running_loop().create_future()

    async def cursor(self) -> Any:
        """Return the cursor. RetryableError: the file cannot be read now."""
        try:
            return await asyncio.to_thread(self._read)
        except sqlite3.Error as error:
            raise RetryableError(f"The log {self._log.path} cannot be read: {error}") from None

    def _read(self) -> Any:
        query = "SELECT entry FROM state WHERE stage = ? AND key = ? AND part = ?"
        with closing(connect(self._log.path)) as connection:
            row = connection.execute(query, (ROOM, self._name, PART)).fetchone()
        return None if row is None else orjson.loads(row[0])[2]

    async def append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        """Write both in one transaction. StorageFullError: nothing was written."""
        writes = WriteSet("append", self._log.encode(records) if records else ())
        writes.change_state(ROOM, {(self._name, PART): cursor})
        await to_the_end(self._log.commit(writes))
