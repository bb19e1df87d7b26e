"""A stage's state as its engine reads it: in come keys, out come their parts, decoded.

Keeps the keys that were used last, and only what was committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

# One step of SQLite gives the parts of all keys that are asked for: a step a row would give up
# the interpreter's lock as often, and wait for it behind the other threads.
_LOAD = """
SELECT CAST('[' || group_concat(entry) || ']' AS BLOB) FROM state
WHERE stage = ? AND key IN (SELECT value FROM json_each(?))
"""
# What a key costs beside its JSON.
_KEY_BYTES = 200


class StateCache:
    """Loads and keeps the state of one stage. One thread uses it."""

    def __init__(
        self, connection: sqlite3.Connection, stage: str, keys_max: int, bytes_max: int
    ) -> None:
        self._connection = connection
        self._stage = stage
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        self._parts: dict[str, dict[str, Any]] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def prepare(self, keys: Iterable[str]) -> None:
        """Load the keys that are not there, all at once, and mark all of them as used."""
        missing = []
        for key in keys:
            parts = self._parts.pop(key, None)
            if parts is None:
                missing.append(key)
            else:
                self._parts[key] = parts
        if missing:
            self._fetch(missing)

    def load(self, key: str) -> Mapping[str, Any]:
        """Return a key's parts; not to be changed."""
        parts = self._parts.get(key)
        if parts is None:
            self._fetch([key])
            parts = self._parts[key]
        return parts

    def committed(self, changes: Mapping[tuple[str, str], Any], bytes_put: int) -> None:
        """Take in what was committed, then forget what was not used for longest."""
        for (key, part), value in changes.items():
            parts = self._parts.get(key)
            if parts is None:
                continue
            if value is None:
                parts.pop(part, None)
            else:
                parts[part] = value
        self._bytes += bytes_put
        self._trim()

    def drop(self, changes: Mapping[tuple[str, str], Any]) -> None:
        """Forget the keys that were touched by what may not have been committed."""
        for key, _ in changes:
            if self._parts.pop(key, None) is not None:
                self._bytes -= self._sizes.pop(key)

    def _fetch(self, keys: list[str]) -> None:
        for key in keys:
            self._parts[key] = {}
            self._sizes[key] = _KEY_BYTES
        self._bytes += _KEY_BYTES * len(keys)
        (text,) = self._connection.execute(
            _LOAD, (self._stage, orjson.dumps(keys).decode())
        ).fetchone()
        if text is None:
            return
        for key, part, value in orjson.loads(text):
            self._parts[key][part] = value
        self._bytes += len(text)
        share = len(text) // len(keys)
        for key in keys:
            self._sizes[key] += share

    def _trim(self) -> None:
        """Keys stand in order of their use; sizes are shares, so the sum is made anew at zero."""
        while self._parts and (len(self._parts) > self._keys_max or self._bytes > self._bytes_max):
            key = next(iter(self._parts))
            del self._parts[key]
            self._bytes -= self._sizes.pop(key)
        if not self._parts:
            self._bytes = 0
