"""Looks at a log: out come records, positions, state and timers, also while a process writes it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from pipeline.errors import UsageError
from pipeline.model.record import Record
from pipeline.stream import database
from pipeline.stream.catalogue import Catalogue
from pipeline.stream.cursor import Cursor

_READ_BYTES_MAX = 64 * 1024 * 1024


class LogView:
    """A log that is only looked at. Sees what is committed, at the moment of each call."""

    def __init__(self, path: Path) -> None:
        """Open it. UsageError: there is none, or the file is no log of this version."""
        if not path.exists():
            raise UsageError(f"There is no log at {path}; start `funicular run`, or name another")
        try:
            self._connection = database.connect(path)
        except sqlite3.OperationalError as error:
            raise UsageError(f"Cannot open the log {path}: {error}") from None
        try:
            database.check_version(self._connection, path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UsageError(f"Cannot open the log {path}: {error}") from None
        except UsageError:
            self._connection.close()
            raise

    def topics(self) -> dict[str, tuple[int, int]]:
        """Return the topics: the first offset that is there, and the next one to be given."""
        found = self._connection.execute("SELECT name, first, next FROM topic ORDER BY name")
        return {name: (first, following) for name, first, following in found}

    def scan(self, topic: str, after_offset: int = -1, limit: int = 100) -> list[Record]:
        """Return up to `limit` records with offsets past `after_offset`."""
        catalogue = Catalogue(self._connection, 0)
        found: list[Record] = []
        cursor = Cursor(catalogue, topic, after_offset + 1)
        while len(found) < limit:
            records = cursor.read(self._connection, limit - len(found), _READ_BYTES_MAX)
            if not records:
                break
            found += records
        return found

    def last_offset(self, topic: str) -> int:
        """Return the last offset that was given, -1 where there is none."""
        return self.topics().get(topic, (0, 0))[1] - 1

    def positions(self) -> dict[tuple[str, str], int]:
        """Return the next offset to read, by topic and group."""
        found = Catalogue(self._connection, 0).positions()
        return {position.move[:2]: position.move.next for position in found}

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and group."""
        return Catalogue(self._connection, 0).lag()

    def state(self, stage: str, key: str | None = None) -> dict[str, dict[str, Any]]:
        """Return what a stage keeps: key → part → value; of one key, or of all."""
        found = self._connection.execute(
            "SELECT entry FROM state WHERE stage = ?1 AND (?2 IS NULL OR key = ?2)"
            " ORDER BY key, part",
            (stage, key),
        )
        state: dict[str, dict[str, Any]] = {}
        for (entry,) in found:
            name, part, value = orjson.loads(entry)
            state.setdefault(name, {})[part] = value
        return state

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        """Return a stage's timers in order: due_ms, key, name, data."""
        found = self._connection.execute(
            "SELECT due_ms, key, name, data FROM timer WHERE stage = ? ORDER BY due_ms, key, name",
            (stage,),
        )
        return [(due_ms, key, name, orjson.loads(data)) for due_ms, key, name, data in found]

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
