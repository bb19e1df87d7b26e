"""Deletes what is old enough, or over a topic's size, and read by every group that needs it.

In comes the time and how full the log is; out go rows of the file, a few a step, so that commits
in between wait little. What a group has not read is never deleted: the log grows instead, up to
its limit, where the door refuses. A log that is over its limit gives up records before their age
where all groups have read them.
"""

from __future__ import annotations

import sqlite3

from pipeline import topics
from pipeline.logs import get_logger
from pipeline.stream.catalogue import Catalogue, Topic
from pipeline.stream.database import OFFSET_BITS, delete_rows, write_rows
from pipeline.stream.settings import LogSettings

_log = get_logger(__name__)

# Below nine tenths of the limit, a log that was full is no longer under pressure.
_RELIEVED = 0.9
# Free pages are used again by the next records; only where they are many does the file shrink.
_FREE_SHARE = 0.25
_FREE_PAGES_MIN = 256
_VACUUM_PAGES = 512


class Retention:
    """Runs in the committer's thread, on its connection, outside of its transactions."""

    def __init__(
        self, connection: sqlite3.Connection, catalogue: Catalogue, settings: LogSettings
    ) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._settings = settings
        self._wanted = 0
        self._oldest_ms: dict[str, int] = {}
        self.busy = False

    def press(self, wanted_bytes: int) -> None:
        """Be told that appends are refused: the next step may delete this much before its age."""
        self._wanted = wanted_bytes
        self.busy = True

    def rest(self) -> None:
        """Leave the rest for the next time."""
        self.busy = False

    def step(self, now_ms: int, used_bytes: int) -> None:
        """Delete a little; `busy` says whether there is more to do at once."""
        over, self._wanted = self._wanted, 0
        if used_bytes > self._settings.log_bytes_max:
            over = max(over, used_bytes - int(self._settings.log_bytes_max * _RELIEVED))
        worked = False
        needed = self._catalogue.needed()
        for topic in self._catalogue.topics():
            freed = self._trim(topic, needed.get(topic.name), now_ms, over)
            over = max(0, over - freed)
            worked = worked or freed > 0
        self._forget_abandoned(now_ms)
        self.busy = self._shrink() or worked

    def _trim(self, topic: Topic, needed: int | None, now_ms: int, over: int) -> int:
        """Delete the topic's oldest rows as far as allowed; return their bytes.

        `needed` is the first offset that a group still needs, None where the topic has no groups.
        """
        end = topic.next if needed is None else min(needed, topic.next)
        if topic.first >= end:
            return 0
        about = _row_of(topic.name)
        if about is not None and about.compacted:
            return 0
        cutoff = now_ms - int(self._retention_s(topic.name, about) * 1000)
        excess = topic.bytes - self._settings.topic_bytes_max
        if needed is not None:
            excess = max(excess, over)
        if excess <= 0 and self._oldest_ms.get(topic.name, cutoff - 1) >= cutoff:
            return 0
        last, freed, count = self._oldest(topic, end, cutoff, excess)
        if last < 0:
            return 0
        left = topic._replace(first=last + 1, bytes=max(0, topic.bytes - freed))
        self._connection.execute("BEGIN IMMEDIATE")
        base = topic.id << OFFSET_BITS
        self._connection.execute(
            "DELETE FROM records WHERE place BETWEEN ? AND ?", (base, base | last)
        )
        write_rows(self._connection, "REPLACE INTO topic VALUES", [left])
        self._connection.execute("COMMIT")
        self._catalogue.publish([left], (), now_ms)
        _log.debug("retention deleted records", topic=topic.name, records=count, bytes=freed)
        return freed

    def _oldest(self, topic: Topic, end: int, cutoff_ms: int, excess: int) -> tuple[int, int, int]:
        """Return the last offset to delete (-1: none), and the bytes and records up to it."""
        base = topic.id << OFFSET_BITS
        last, freed, records = -1, 0, 0
        found = self._connection.execute(
            "SELECT place, count, time_ms, bytes FROM records"
            " WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
            (base, base + end - 1, self._settings.retention_rows_max),
        ).fetchall()
        for place, count, time_ms, size in found:
            self._oldest_ms[topic.name] = time_ms
            if time_ms >= cutoff_ms and freed >= excess:
                break
            if records and freed + size > self._settings.retention_bytes_max:
                break
            last = place - base
            freed += size
            records += count
        return last, freed, records

    def _retention_s(self, name: str, about: topics.Topic | None) -> float:
        given = self._settings.retention_s
        if name in given:
            return given[name]
        if about is None:
            return 7 * topics.DAY_S
        return given.get(about.name, about.retention_s)

    def _forget_abandoned(self, now_ms: int) -> None:
        groups = self._catalogue.abandoned(now_ms - int(self._settings.abandoned_s * 1000))
        if groups:
            delete_rows(self._connection, "position", "topic, reader", groups)
            self._catalogue.forget(groups)

    def _shrink(self) -> bool:
        """Give free pages back to the disk where there are many; return whether there are more."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        if free < _FREE_PAGES_MIN or free < pages * _FREE_SHARE:
            return False
        # It gives a row of no columns a page; `execute` would stop at the first.
        self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES:d})")
        return True


def _row_of(name: str) -> topics.Topic | None:
    try:
        return topics.topic_of(name)
    except KeyError:
        return None
