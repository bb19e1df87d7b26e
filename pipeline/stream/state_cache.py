"""A stage's state as its engine reads it: in come keys, out come their parts, decoded.

Keeps the keys that were used last, as JSON: decoded they would take three times the memory, and a
batch needs few of them. Only what was committed is kept: a commit that failed leaves it as it was.
What is aside (`ports.ASIDE`) is read when it is asked for, and not kept.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import orjson

from pipeline.ports import ASIDE, PAST_ASIDE

# One step of SQLite gives the parts of all keys that are asked for: a step a row would give up
# the interpreter's lock as often, and wait for it behind the other threads. JSON has no line ends.
_LOAD = """
SELECT CAST(group_concat(entry, char(10)) AS BLOB) FROM state
WHERE stage = ? AND key IN (SELECT value FROM json_each(?)) AND part >= ?
"""
_LOAD_ASIDE = """
SELECT CAST(group_concat(entry, char(10)) AS BLOB) FROM state
WHERE stage = ? AND key = ? AND part >= ? AND part < ?
"""
_LAST = chr(sys.maxunicode)
# What a key and a part cost beside their JSON.
_KEY_BYTES = 300
_PART_BYTES = 50


class StateCache:
    """Loads and keeps the state of one stage. One thread uses it."""

    def __init__(
        self, connection: sqlite3.Connection, stage: str, keys_max: int, bytes_max: int
    ) -> None:
        self._connection = connection
        self._stage = stage
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        # Of each key its parts as the table has them: JSON of [key, part, value].
        self._entries: dict[str, dict[str, bytes]] = {}
        self._bytes = 0
        # What this batch's keys were decoded to, to tell their parts apart.
        self._fresh: dict[str, dict[str, Any]] = {}

    def prepare(self, keys: Iterable[str]) -> None:
        """Load the keys that are not there, all at once, and mark all of them as used."""
        missing = []
        for key in keys:
            entries = self._entries.pop(key, None)
            if entries is None:
                missing.append(key)
            else:
                self._entries[key] = entries
        if missing:
            self._fetch(missing)

    def load(self, key: str) -> dict[str, Any]:
        """Return a key's parts, but for those aside."""
        entries = self._entries.get(key)
        if entries is None:
            self._fetch([key])
            entries = self._entries[key]
        fresh = self._fresh.pop(key, None)
        return _decoded(entries.values()) if fresh is None else fresh

    def load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        """Return those parts of a key that are aside and whose names begin so."""
        return _decoded(self._read(_LOAD_ASIDE, key, prefix, prefix + _LAST))

    def committed(
        self, put: Sequence[tuple[str, str, str, bytes]], deleted: Sequence[tuple[str, str, str]]
    ) -> None:
        """Take in the rows that were committed, then forget what was not used for longest."""
        self._fresh.clear()
        for _, key, part, entry in put:
            entries = self._entries.get(key)
            if entries is not None and not part.startswith(ASIDE):
                before = entries.get(part)
                self._bytes += len(entry) - (-_PART_BYTES if before is None else len(before))
                # A copy: what orjson gave lies in a block made for more, and would hold that.
                entries[part] = bytes(memoryview(entry))
        for _, key, part in deleted:
            entries = self._entries.get(key)
            if entries is not None and part in entries:
                self._bytes -= len(entries.pop(part)) + _PART_BYTES
        while self._entries and (
            len(self._entries) > self._keys_max or self._bytes > self._bytes_max
        ):
            entries = self._entries.pop(next(iter(self._entries)))
            self._bytes -= _KEY_BYTES + _size(entries.values())

    def _fetch(self, keys: list[str]) -> None:
        found = self._read(_LOAD, orjson.dumps(keys).decode(), PAST_ASIDE)
        for key in keys:
            self._entries[key] = {}
            self._fresh[key] = {}
        for entry, (key, part, value) in zip(found, _values(found), strict=True):
            self._entries[key][part] = entry
            self._fresh[key][part] = value
        self._bytes += _KEY_BYTES * len(keys) + _size(found)

    def _read(self, query: str, *bounds: str) -> list[bytes]:
        (text,) = self._connection.execute(query, (self._stage, *bounds)).fetchone()
        return [] if text is None else text.split(b"\n")


def _size(entries: Collection[bytes]) -> int:
    return sum(map(len, entries)) + _PART_BYTES * len(entries)


def _decoded(entries: Iterable[bytes]) -> dict[str, Any]:
    return {part: value for _, part, value in _values(entries)}


def _values(entries: Iterable[bytes]) -> list[tuple[str, str, Any]]:
    values: list[tuple[str, str, Any]] = orjson.loads(b"[" + b",".join(entries) + b"]")
    return values
