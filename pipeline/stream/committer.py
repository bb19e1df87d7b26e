"""The one thread that writes the embedded log.

In come write sets from everybody: appends of the door, commits of stages and sinks. It takes all
that wait, writes them in one transaction with one sync to disk, and tells those who wait: so a
thousand requests share one sync. In between it deletes, in small steps, what retention allows.
A disk without room fails the sets of that transaction and nothing else; any other error is a bug,
and ends it for good: `failed` says so.
"""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from pipeline.errors import ClosedError, StorageFullError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.stream import rows
from pipeline.stream.catalogue import Catalogue, Topic
from pipeline.stream.database import OFFSET_BITS, delete_rows, write_rows
from pipeline.stream.retention import Retention
from pipeline.stream.settings import LogSettings
from pipeline.stream.writeset import LoopWakes, Move, WriteSet

_log = get_logger(__name__)

# What SQLite says when there is no room: ENOSPC is FULL; a quota and a file size limit are
# WRITE; the shared memory file beside the log needs room too.
_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}
# Each refused request would be a line of the log otherwise.
_SAY_FULL_EVERY_S = 30.0


class Committer:
    """Owns the write connection and the thread."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        *,
        settings: LogSettings,
        metrics: Registry,
        clock: Callable[[], int],
        wakes: LoopWakes,
    ) -> None:
        self._path = path
        self._connection = connection
        self._catalogue = catalogue
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._wakes = wakes
        self._retention = Retention(connection, catalogue, settings)
        self._queue: queue.SimpleQueue[WriteSet | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closing = False
        self._left: WriteSet | None = None
        self._used = 0
        self._measured = 0.0
        self._time_ms = 0
        self._said_full = float("-inf")
        self._refused = 0.0  # when an append was last refused; 0: not since it recovered
        self.failed: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="funicular-log", daemon=True)
        self._measure()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, writes: WriteSet) -> None:
        """Hand over what is to be written; its waiter is told. ClosedError: too late."""
        with self._gate:
            if not self._closing:
                self._queue.put(writes)
                return
        raise self._closed()

    def close(self) -> None:
        """Write what was handed over, then end; returns when the file is closed."""
        with self._gate:
            closing, self._closing = self._closing, True
            if not closing:
                self._queue.put(None)
        self._thread.join()

    @property
    def size_bytes(self) -> int:
        """How much of the file is in use, about."""
        return self._used

    def _closed(self) -> Exception:
        if self.failed.done() and (error := self.failed.exception()):
            return ClosedError(f"The log {self._path} has failed: {error}")
        return ClosedError(f"The log {self._path} is closed")

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - it is told to all who wait, and to `failed`.
            self._fail(error)
        else:
            self.failed.set_result(None)
        finally:
            self._connection.close()
            self._wakes.send()

    def _serve(self) -> None:
        next_upkeep = time.monotonic() + self._settings.upkeep_every_s
        while True:
            sets, ended = self._take(0 if self._retention.busy else next_upkeep - time.monotonic())
            if sets:
                self._commit(sets)
            if ended:
                return
            if self._retention.busy or time.monotonic() >= next_upkeep:
                next_upkeep = time.monotonic() + self._settings.upkeep_every_s
                self._upkeep()

    def _take(self, wait_s: float) -> tuple[list[WriteSet], bool]:
        """Return all that waits, within the limits of one transaction, and whether this is the
        end.
        """
        sets: list[WriteSet] = []
        records = size = 0
        writes: WriteSet | None
        if self._left is not None:
            writes, self._left = self._left, None
        else:
            try:
                writes = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                return sets, False
        while writes is not None:
            records += writes.records
            size += writes.size
            over = (
                records > self._settings.commit_records_max
                or size > self._settings.commit_bytes_max
            )
            if over and sets:
                self._left = writes
                return sets, False
            sets.append(writes)
            try:
                writes = self._queue.get_nowait()
            except queue.Empty:
                return sets, False
        return sets, True

    def _commit(self, sets: list[WriteSet]) -> None:
        taken = self._admit(sets)
        self._time_ms = max(self._time_ms, self._clock())
        try:
            if taken:
                self._write(taken)
        except sqlite3.OperationalError as error:
            self._roll_back()
            if error.sqlite_errorcode not in _NO_ROOM:
                self._finish(taken, error)
                raise
            self._say_full(str(error))
            self._finish(taken, StorageFullError(f"No room for the log {self._path}: {error}"))
        except BaseException as error:
            self._roll_back()
            self._finish(taken, error)
            raise
        else:
            self._finish(taken, None)
        self._wakes.send()

    def _write(self, sets: list[WriteSet]) -> None:
        """Write the sets in one transaction, then let readers see them."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        moved = self._write_records(sets)
        moves: dict[tuple[str, str], Move] = {}
        forgotten = [writes.forgotten for writes in sets if writes.forgotten is not None]
        for writes in sets:
            write_rows(connection, "REPLACE INTO state VALUES", writes.state_put)
            delete_rows(connection, "state", "stage, key, part", writes.state_deleted)
            write_rows(connection, "REPLACE INTO timer VALUES", writes.timers_put)
            delete_rows(connection, "timer", "stage, key, name", writes.timers_deleted)
            move = writes.move
            if move is not None:
                known = moves.get(move[:2])
                if known is None or known.next <= move.next:
                    moves[move[:2]] = move
        settled = [self._catalogue.settle(move) for move in moves.values()]
        positions = [(*move[:5], self._time_ms) for move in settled]
        write_rows(connection, "REPLACE INTO position VALUES", positions)
        delete_rows(connection, "position", "topic, reader", forgotten)
        connection.execute("COMMIT")
        self._used += sum(writes.size for writes in sets)
        self._metrics.add("funicular_log_commits_total")
        self._catalogue.publish(moved, settled, self._time_ms)
        self._catalogue.forget(forgotten)

    def _write_records(self, sets: list[WriteSet]) -> list[Topic]:
        """Insert the rows of all sets; return the topics as they are then."""
        by_topic: dict[str, list[rows.Chunk]] = {}
        for writes in sets:
            for chunk in writes.chunks:
                found = by_topic.get(chunk.topic)
                if found is None:
                    by_topic[chunk.topic] = [chunk]
                else:
                    found.append(chunk)
        moved: list[Topic] = []
        inserts: list[tuple[int, int, int, int, bytes]] = []
        for name, chunks in by_topic.items():
            topic = self._catalogue.topic_to_write(name, moved)
            next_offset, size = topic.next, topic.bytes
            for count, blob in _merge(chunks, self._settings):
                next_offset += count
                size += len(blob)
                place = (topic.id << OFFSET_BITS) | (next_offset - 1)
                inserts.append((place, count, self._time_ms, len(blob), blob))
            moved.append(topic._replace(next=next_offset, bytes=size))
        write_rows(self._connection, "INSERT INTO records VALUES", inserts)
        write_rows(self._connection, "REPLACE INTO topic VALUES", moved)
        return moved

    def _admit(self, sets: list[WriteSet]) -> list[WriteSet]:
        """Return the sets for which there is room; tell the others."""
        if time.monotonic() - self._measured > 1.0:
            self._measure()
        limit = self._settings.log_bytes_max
        hard_limit = limit + self._settings.reserve_bytes
        coming = self._used + sum(writes.size for writes in sets)
        if coming <= limit and not self._disk_low:
            return sets
        self._measure()
        used = self._used
        taken: list[WriteSet] = []
        refused: list[WriteSet] = []
        for writes in sets:
            if writes.purpose == "append":
                fits = used + writes.size <= limit and not self._disk_low
            elif writes.purpose == "stage":
                fits = used + writes.size <= hard_limit
            else:
                fits = True
            (taken if fits else refused).append(writes)
            if fits:
                used += writes.size
        if refused:
            wanted = sum(writes.size for writes in refused) + limit // 10
            self._retention.press(wanted)
            why = (
                f"less than {self._settings.disk_free_bytes_min} bytes are free on its disk"
                if self._disk_low
                else f"it has reached its limit of {limit} bytes (log_bytes_max)"
            )
            self._say_full(why)
            self._finish(refused, StorageFullError(f"No room for the log {self._path}: {why}"))
        return taken

    def _measure(self) -> None:
        """Find out how much of the file is in use, and what the disk has left."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = self._connection.execute("PRAGMA page_size").fetchone()
        self._used = (pages - free) * page_size
        free_bytes = shutil.disk_usage(self._path.parent).free
        self._disk_low = free_bytes < self._settings.disk_free_bytes_min
        self._measured = time.monotonic()

    def _upkeep(self) -> None:
        """Take one step of retention, and the gauges. A full disk only puts it off."""
        try:
            self._measure()
            self._retention.step(self._clock(), self._used)
        except sqlite3.OperationalError as error:
            self._roll_back()
            if error.sqlite_errorcode not in _NO_ROOM:
                raise
            self._retention.rest()
            self._say_full(str(error))
        self._say_recovered()
        self._metrics.set("funicular_log_bytes", self._used)
        for (topic, group), lag in self._catalogue.lag().items():
            self._metrics.set("funicular_lag_records", lag, topic=topic, group=group)

    def _say_recovered(self) -> None:
        has_room = self._used <= self._settings.log_bytes_max and not self._disk_low
        if self._refused and has_room and time.monotonic() - self._refused > 1.0:
            self._refused = 0.0
            self._said_full = float("-inf")
            _log.info("the log takes records again", bytes=self._used)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _say_full(self, why: str) -> None:
        self._refused = now = time.monotonic()
        if now - self._said_full >= _SAY_FULL_EVERY_S:
            self._said_full = now
            _log.error("the log takes no more records until there is room", why=why)

    def _finish(self, sets: Sequence[WriteSet], error: BaseException | None) -> None:
        for writes in sets:
            if writes.waiter is not None:
                writes.waiter.finish(error)

    def _fail(self, error: BaseException) -> None:
        _log.critical("the log has failed and is closed", exc_info=error)
        with self._gate:
            self._closing = True
        rest = [] if self._left is None else [self._left]
        while not self._queue.empty():
            if (writes := self._queue.get_nowait()) is not None:
                rest.append(writes)
        self.failed.set_exception(error)
        self._finish(rest, self._closed())


def _merge(chunks: Sequence[rows.Chunk], settings: LogSettings) -> Sequence[tuple[int, bytes]]:
    """Return rows (count, blob): as many chunks in one as its limits allow."""
    merged = []
    part: list[rows.Chunk] = []
    count = size = 0
    for chunk in chunks:
        over = (
            count + chunk.count > settings.row_records_max
            or size + len(chunk.body) > settings.row_bytes_max
        )
        if part and over:
            merged.append((count, rows.array(part, count)))
            part, count, size = [], 0, 0
        part.append(chunk)
        count += chunk.count
        size += len(chunk.body)
    merged.append((count, rows.array(part, count)))
    return merged
