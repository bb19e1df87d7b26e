"""The embedded log: one SQLite file, nothing to install.

In come records of the edges (`append`, `Reader.commit`) and of stages (`SqliteEngine`); out go
batches to readers. Implements `ports.Log` and `ports.Reader`.

What it promises: what was appended and returned is on the disk (WAL, `synchronous=FULL`), and a
`kill -9` at any moment loses none of it; each write set is there whole or not at all; offsets of
a topic grow and are never given twice, also after retention deleted the tail. The state of stages
lives in a table of the same file, so there is no changelog topic: `device.state` and
`downlink.state` stay empty here. There is one partition, 0.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import ClosedError, UsageError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Holder
from pipeline.stream import database, rows
from pipeline.stream.catalogue import Catalogue
from pipeline.stream.committer import Committer
from pipeline.stream.cursor import Cursor
from pipeline.stream.settings import LogSettings
from pipeline.stream.view import LogView
from pipeline.stream.writeset import LoopWaiter, LoopWakes, Move, ThreadWaiter, WriteSet


def wall_clock_ms() -> int:
    """Return the time, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class SqliteLog:
    """The log, open for writing. Made by `open`; one process at a time.

    Its coroutines may be used from any asyncio loop, its other methods from any thread.
    """

    def __init__(
        self,
        path: Path,
        settings: LogSettings,
        metrics: Registry,
        clock: Callable[[], int],
        lock: database.OwnerLock,
    ) -> None:
        self.path = path
        self.settings = settings
        self.clock = clock
        self._lock = lock
        connection = database.open_writer(path, settings.checkpoint_pages)
        self.catalogue = Catalogue(connection, settings.topics_max)
        self._wakes = LoopWakes()
        self._committer = Committer(
            path,
            connection,
            self.catalogue,
            settings=settings,
            metrics=metrics,
            clock=clock,
            wakes=self._wakes,
        )
        self._pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="funicular-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers: set[SqliteReader] = set()
        self._waiting_bytes = 0
        self._waiting_lock = threading.Lock()
        self._outside: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self.closed = False
        self._committer.start()

    @classmethod
    def open(
        cls,
        path: Path | str,
        settings: LogSettings | None = None,
        metrics: Registry | None = None,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> Self:
        """Open or make the log. UsageError: another process has it, or the file is no log."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"Cannot make the folder of the log {path}: {error}") from None
        lock = database.OwnerLock(path)
        try:
            return cls(path, settings or LogSettings(), metrics or Registry(), clock, lock)
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def peek(path: Path | str) -> LogView:
        """Open a log only to look, also while another process writes it."""
        return LogView(Path(path))

    @property
    def failed(self) -> Future[None]:
        """Done when the log has ended: with the error, where it was a bug or a broken disk."""
        return self._committer.failed

    @property
    def size_bytes(self) -> int:
        """How much of the file is in use, about."""
        return self._committer.size_bytes

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Return when all records are durable, in one step.

        StorageFullError: nothing was written. ClosedError: the log is closed or has failed; what
        was handed over just before may be there. MessageError `record_too_large`. Waits while
        `queue_bytes_max` is exceeded by those before it.
        """
        if records:
            await self._written(WriteSet("append", self._encode(records)))

    def append_blocking(self, records: Sequence[Outgoing]) -> None:
        """Do the same for a caller that has no loop."""
        if records:
            self.commit_blocking(WriteSet("append", self._encode(records)))

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> SqliteReader:
        """Return a reader at the group's committed position (new group: the earliest, or the
        end).

        From here on, what the group has not read is kept. With `from_end` that holds while the
        reader is open; its position is kept only once it was committed, and forgotten when nobody
        used it for `abandoned_s`. One reader a group at a time.
        """
        assert not partition, "this log has partition 0 alone"
        if self.closed:
            raise ClosedError(f"The log {self.path} is closed")
        reader = SqliteReader(self, topic, self.register(topic, group, from_end=from_end))
        self._readers.add(reader)
        return reader

    def partition_of(self, topic: str, key: str) -> int:  # noqa: ARG002 - the port's shape
        """Return 0, the one partition."""
        return 0

    def register(self, topic: str, group: str, *, from_end: bool = False) -> Move:
        """Make a group known, so that retention keeps what it has not read; return its place."""
        start = self.catalogue.end(topic) if from_end else 0
        known = self.catalogue.position(topic, group)
        move = self.catalogue.register(Move(topic, group, start, 0, from_end), self.clock())
        if known is None and not from_end:
            self._committer.submit(WriteSet("reader", move=move))
        return move

    async def forget(self, topic: str, group: str) -> None:
        """Remove a group that will not come back, so that it keeps no records any more."""
        await asyncio.get_running_loop().run_in_executor(None, self._forget_blocking, topic, group)

    def scan(self, topic: str, after_offset: int = -1, limit: int = 100) -> list[Record]:
        """Return records of a topic, for those who look; blocks for a read of the disk."""
        with LogView(self.path) as view:
            return view.scan(topic, after_offset, limit)

    def last_offset(self, topic: str) -> int:
        """Return the last offset that was given, -1 where there is none."""
        return self.catalogue.end(topic) - 1

    def positions(self) -> dict[tuple[str, str], int]:
        """Return the next offset to read, by topic and group."""
        return {position.move[:2]: position.move.next for position in self.catalogue.positions()}

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and group."""
        return self.catalogue.lag()

    def close(self) -> None:
        """Write what was handed over, end the readers, close the file. May be called twice."""
        if self.closed:
            return
        self.closed = True
        for reader in list(self._readers):
            reader.end()
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()
        # The last connection to close folds the write-ahead log into the file, if it may write.
        self._committer.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What the engine and the readers use.

    def encode(self, records: Sequence[Outgoing]) -> list[rows.Chunk]:
        """Return records ready to be committed."""
        return self._encode(records)

    def commit_blocking(self, writes: WriteSet) -> None:
        """Return when the set is written, as `append`."""
        writes.waiter = waiter = ThreadWaiter()
        self._committer.submit(writes)
        waiter.wait()

    async def commit(self, writes: WriteSet) -> None:
        """Return when the set is written, as `append`."""
        await self._written(writes)

    async def fetch(self, cursor: Cursor, records_max: int) -> list[Record]:
        """Read in a thread of the pool."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._read, cursor, records_max)
        except (RuntimeError, sqlite3.ProgrammingError):
            if self.closed:
                return []
            raise

    def drop(self, reader: SqliteReader) -> None:
        """Forget a reader that was closed."""
        self._readers.discard(reader)

    def _encode(self, records: Sequence[Outgoing]) -> list[rows.Chunk]:
        chunks = rows.encode(records, self.settings)
        for chunk in chunks:
            if self.catalogue.topic(chunk.topic) is None:
                self.catalogue.check_room(chunk.topic)
        return chunks

    async def _written(self, writes: WriteSet) -> None:
        loop = asyncio.get_running_loop()
        size = writes.size
        while self._waiting_bytes and self._waiting_bytes + size > self.settings.queue_bytes_max:
            turn: asyncio.Future[None] = loop.create_future()
            self._outside.append((loop, turn))
            await turn
        waiter = LoopWaiter(loop, self._wakes)
        writes.waiter = waiter
        with self._waiting_lock:
            self._waiting_bytes += size
        try:
            self._committer.submit(writes)
            # A caller that is cancelled does not undo the write.
            await waiter.future
        finally:
            with self._waiting_lock:
                self._waiting_bytes -= size
            if self._outside:
                self._let_in()

    def _let_in(self) -> None:
        """Let those who wait outside try again, in their order."""
        outside, self._outside = self._outside, deque()
        for loop, turn in outside:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_open, turn)

    def _read(self, cursor: Cursor, records_max: int) -> list[Record]:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = database.connect(self.path)
            self._connections.append(connection)
        return cursor.read(connection, records_max, self.settings.read_bytes_max)

    def _forget_blocking(self, topic: str, group: str) -> None:
        writes = WriteSet("reader")
        writes.forgotten = (topic, group)
        self.commit_blocking(writes)


class SqliteReader:
    """Reads one topic for one group; `ports.Reader`."""

    def __init__(self, log: SqliteLog, topic: str, start: Move) -> None:
        self._log = log
        self._start = start
        self._cursor = Cursor(log.catalogue, topic, start.next)
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grown = asyncio.Event()
        self._asleep = False
        log.catalogue.opened(topic, start.group, 1)
        log.catalogue.listen(topic, self._wake)

    async def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        """Yield non-empty batches in order, waiting for new records; ends when the log closes."""
        self._loop = asyncio.get_running_loop()
        while not self._ended:
            self._grown.clear()
            self._asleep = True
            if self._cursor.behind:
                self._asleep = False
                records = await self._log.fetch(self._cursor, records_max)
                if records:
                    yield records
            elif not self._ended:
                # Told apart here again: who ends it wakes only those who are marked as asleep.
                await self._grown.wait()

    async def opened(self) -> None:
        """Return at once: the reader stands where `read` said."""

    def watch(self, holder: Holder) -> None:
        """Do nothing: the one partition stays with the one reader."""

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        """Append `records` and move the group's position past `offset`, in one step."""
        last = offset if isinstance(offset, int) else offset[0]
        move = self._start._replace(next=last + 1)
        chunks = self._log.encode(records) if records else ()
        await self._log.commit(WriteSet("reader", chunks, move))

    async def close(self) -> None:
        """Stop reading; the position stays."""
        self.end()

    def end(self) -> None:
        """Do the same, from any thread."""
        if self._ended:
            return
        self._ended = True
        catalogue = self._log.catalogue
        catalogue.unlisten(self._start.topic, self._wake)
        catalogue.opened(self._start.topic, self._start.group, -1)
        self._log.drop(self)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if self._asleep and loop is not None and not loop.is_closed():
            self._asleep = False
            try:
                loop.call_soon_threadsafe(self._grown.set)
            except RuntimeError:
                if not loop.is_closed():
                    raise


def _open(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
