"""Reads a topic of the embedded log from an offset on: out come records, a bounded batch a time."""

from __future__ import annotations

import sqlite3

from pipeline.model.record import Record
from pipeline.stream import rows
from pipeline.stream.catalogue import Catalogue
from pipeline.stream.database import OFFSET_BITS


class Cursor:
    """Stands at `next` in one topic. One thread at a time uses it."""

    def __init__(self, catalogue: Catalogue, topic: str, next_offset: int) -> None:
        self._catalogue = catalogue
        self._topic = topic
        self._left: list[Record] = []
        self.next = next_offset

    @property
    def behind(self) -> bool:
        """Whether there is something to read, as of the last commit."""
        return self.next < self._catalogue.end(self._topic)

    def read(
        self, connection: sqlite3.Connection, records_max: int, bytes_max: int
    ) -> list[Record]:
        """Return the next records and move past them; empty where there are none.

        `bytes_max` is kept to within one row.
        """
        found = self._left
        if not found:
            found = self._fetch(connection, records_max, bytes_max)
        if len(found) > records_max:
            found, self._left = found[:records_max], found[records_max:]
        else:
            self._left = []
        if found:
            self.next = found[-1].offset + 1
        return found

    def _fetch(
        self, connection: sqlite3.Connection, records_max: int, bytes_max: int
    ) -> list[Record]:
        topic = self._catalogue.topic(self._topic)
        if topic is None or self.next >= topic.next:
            return []
        base = topic.id << OFFSET_BITS
        found: list[Record] = []
        size = 0
        cursor = connection.execute(
            "SELECT place, time_ms, blob FROM records WHERE place BETWEEN ? AND ? ORDER BY place",
            (base | self.next, base | (topic.next - 1)),
        )
        try:
            for place, time_ms, blob in cursor:
                found += rows.decode(self._topic, place - base, time_ms, blob)
                size += len(blob)
                if len(found) >= records_max or size >= bytes_max:
                    break
        finally:
            # An open statement would keep the write-ahead log from starting anew.
            cursor.close()
        if not found:
            # Retention took what was not protected.
            self.next = topic.next
        elif found[0].offset < self.next:
            found = found[self.next - found[0].offset :]
        return found
