"""A stage's state as its engine reads it: in come keys, out come their parts, decoded.

What is aside (`ports.ASIDE`) is read when it is asked for, and not kept. Keeps the keys that were
used last, and only what was committed: a commit that failed leaves it as it was.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson

from pipeline.ports import ASIDE

# One step of SQLite gives the parts of all keys that are asked for: a step a row would give up
# the interpreter's lock as often, and wait for it behind the other threads.
_LOAD = """
SELECT CAST('[' || group_concat(entry) || ']' AS BLOB) FROM state
WHERE stage = ? AND key IN (SELECT value FROM json_each(?)) AND part >= ?
"""
_LOAD_ASIDE = """
SELECT CAST('[' || group_concat(entry) || ']' AS BLOB) FROM state
WHERE stage = ? AND key = ? AND part >= ? AND part < ?
"""
_PAST_ASIDE = chr(ord(ASIDE) + 1)
_LAST = chr(sys.maxunicode)
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
        # How long the JSON is of those parts that were written since their key was loaded.
        self._lengths: dict[str, dict[str, int]] = {}
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

    def load(self, key: str) -> dict[str, Any]:
        """Return a key's parts, but for those aside; not to be changed."""
        parts = self._parts.get(key)
        if parts is None:
            self._fetch([key])
            parts = self._parts[key]
        return parts

    def load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        """Return those parts of a key that are aside and whose names begin so."""
        (text,) = self._connection.execute(
            _LOAD_ASIDE, (self._stage, key, prefix, prefix + _LAST)
        ).fetchone()
        return {} if text is None else {part: value for _, part, value in orjson.loads(text)}

    def committed(
        self,
        changes: Mapping[tuple[str, str], Any],
        put: Collection[tuple[str, str, str, bytes]] = (),
    ) -> None:
        """Take in what was committed, then forget what was not used for longest.

        `changes` is all of it; `put` the rows of those that were not deletions.
        """
        for _, key, part, entry in put:
            self._change(key, part, changes[key, part], len(entry))
        if len(changes) > len(put):
            for (key, part), value in changes.items():
                if value is None:
                    self._change(key, part, None, 0)
        while self._parts and (len(self._parts) > self._keys_max or self._bytes > self._bytes_max):
            key = next(iter(self._parts))
            del self._parts[key]
            self._lengths.pop(key, None)
            self._bytes -= self._sizes.pop(key)

    def _change(self, key: str, part: str, value: Any, size: int) -> None:
        parts = self._parts.get(key)
        if parts is None or part.startswith(ASIDE):
            return
        lengths = self._lengths.get(key)
        if lengths is None:
            lengths = self._lengths[key] = {}
        known = lengths.get(part)
        if known is None:
            before = parts.get(part)
            known = 0 if before is None else len(orjson.dumps((key, part, before)))
        if value is None:
            parts.pop(part, None)
            lengths.pop(part, None)
        else:
            parts[part] = value
            lengths[part] = size
        self._sizes[key] += size - known
        self._bytes += size - known

    def _fetch(self, keys: list[str]) -> None:
        (text,) = self._connection.execute(
            _LOAD, (self._stage, orjson.dumps(keys).decode(), _PAST_ASIDE)
        ).fetchone()
        share = 0 if text is None else len(text) // len(keys)
        for key in keys:
            self._parts[key] = {}
            self._sizes[key] = _KEY_BYTES + share
        self._bytes += (_KEY_BYTES + share) * len(keys)
        if text is not None:
            for key, part, value in orjson.loads(text):
                self._parts[key][part] = value
