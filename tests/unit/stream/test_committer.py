"""The thread that writes: what it does when there is no room, and when it meets a bug."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.errors import ClosedError, MessageError, StorageFullError, UsageError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import EngineSettings, LogSettings, SqliteEngine, SqliteLog

WAIT_S = 10


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[..., SqliteLog]]:
    """Opens a log with settings; it is closed at the end."""
    opened: list[SqliteLog] = []

    def open_log(**settings: Any) -> SqliteLog:
        given = LogSettings(**{"disk_free_bytes_min": 0, **settings})
        opened.append(SqliteLog.open(tmp_path / "log.db", given, metrics))
        return opened[-1]

    metrics = Registry()
    open_log.metrics = metrics  # type: ignore[attr-defined]
    yield open_log
    for log in opened:
        log.close()


def record(value: bytes = b"v", topic: str = "in", key: str = "k") -> Outgoing:
    return Outgoing(topic, key, value, {"id": "1"})


def limit_disk(log: SqliteLog, more_pages: int | None) -> None:
    """Give the disk room for so many more pages (None: no limit), as SQLite sees it."""
    connection = log._committer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    limit = 1 << 30 if more_pages is None else pages + more_pages
    connection.execute(f"PRAGMA max_page_count = {limit}")


def fill(log: SqliteLog) -> None:
    """Append until the log refuses."""
    for _ in range(100):
        try:
            log.append_blocking([record(b"x" * 30_000)])
        except StorageFullError:
            return
    pytest.fail("the log has no limit")


class Copy:
    name = "copy"
    topic = "in"
    state_topic: str | None = "copy.state"

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            state.put(found.key, "count", (state.get(found.key, "count") or 0) + 1)
        return [Outgoing("out", found.key, found.value, {}) for found in batch.records]


def test_a_full_disk_refuses_and_recovers(opening: Callable[..., SqliteLog]) -> None:
    """SQLITE_FULL fails those appends alone; with room again, the log goes on without a restart."""
    log = opening()
    log.append_blocking([record(b"before")])
    limit_disk(log, 2)
    with pytest.raises(StorageFullError):
        log.append_blocking([record(b"x" * 100_000)])
    assert log.last_offset("in") == 0
    limit_disk(log, None)
    log.append_blocking([record(b"after")])
    assert [found.value for found in log.scan("in")] == [b"before", b"after"]
    assert [found.offset for found in log.scan("in")] == [0, 1]


def test_a_refused_commit_moves_no_position(opening: Callable[..., SqliteLog]) -> None:
    """A reader's records and position are both missing where there was no room for the records."""

    async def story() -> None:
        log = opening()
        await log.append([record()])
        reader = log.read("in", "g")
        await log.append([record(topic="settled")])
        limit_disk(log, 2)
        with pytest.raises(StorageFullError):
            await reader.commit(0, [record(b"x" * 100_000, "out")])
        assert log.positions()["in", "g"] == 0
        assert log.last_offset("out") == -1
        limit_disk(log, None)
        await reader.commit(0, [record(b"x" * 100_000, "out")])
        assert log.positions()["in", "g"] == 1

    asyncio.run(story())


def test_a_stage_waits_for_room_and_then_commits_once(opening: Callable[..., SqliteLog]) -> None:
    """A stage whose commit met a full disk commits the same batch when there is room."""
    log = opening()
    engine = SqliteEngine(log, [Copy()], EngineSettings(retry_first_s=0.001, retry_max_s=0.01))
    log.append_blocking([record(b"x" * 50_000), record(b"y" * 50_000)])
    limit_disk(log, 2)
    engine.start()
    assert not engine.drain(0.2)
    assert log.last_offset("out") == -1
    limit_disk(log, None)
    assert engine.drain(WAIT_S)
    assert engine.stop()
    assert [(found.value or b"")[:1] for found in log.scan("out")] == [b"x", b"y"]
    with log.peek(log.path) as view:
        assert view.state("copy") == {"k": {"count": 2}}


def test_stages_may_use_the_reserve(opening: Callable[..., SqliteLog]) -> None:
    """Where the door is refused, stages still work off what is there, until the reserve is used."""
    log = opening(log_bytes_max=400_000, reserve_bytes=10_000_000)
    engine = SqliteEngine(log, [Copy()])
    fill(log)
    engine.start()
    assert engine.drain(WAIT_S)
    assert engine.stop()
    assert log.last_offset("out") == log.last_offset("in") > 5


def test_a_stage_stops_at_the_end_of_the_reserve(opening: Callable[..., SqliteLog]) -> None:
    """Over `log_bytes_max` and the reserve a stage waits, and can be stopped while it does."""
    log = opening(log_bytes_max=400_000, reserve_bytes=10_000)
    engine = SqliteEngine(log, [Copy()], EngineSettings(retry_first_s=0.001, retry_max_s=5))
    fill(log)
    engine.start()
    assert not engine.drain(0.1)
    assert engine.stop(WAIT_S)
    assert log.last_offset("out") == -1
    assert log.positions()["in", "copy"] == 0


def test_a_disk_that_is_nearly_full_refuses_the_door(opening: Callable[..., SqliteLog]) -> None:
    """Below `disk_free_bytes_min` appends are refused before the disk is full to the brim."""
    log = opening(disk_free_bytes_min=1 << 60)
    with pytest.raises(StorageFullError, match="are free on its disk"):
        log.append_blocking([record()])


def test_a_bug_ends_the_log_and_the_engine(opening: Callable[..., SqliteLog]) -> None:
    """An error that is not about room fails those who wait, and says so to whoever runs it."""
    log = opening()
    engine = SqliteEngine(log, [Copy()])
    engine.start()
    log._committer._connection.execute("DROP TABLE records")
    with pytest.raises(sqlite3.OperationalError):
        log.append_blocking([record()])
    assert isinstance(log.failed.exception(WAIT_S), sqlite3.OperationalError)
    assert isinstance(engine.failed.exception(WAIT_S), sqlite3.OperationalError)
    with pytest.raises(ClosedError, match="has failed"):
        log.append_blocking([record()])
    assert engine.stop()
    assert not engine.running


class CrashError(BaseException):
    """Stands for the death of the process."""


class DyingConnection:
    """A connection that dies before its nth statement, and rolls back like a killed process."""

    def __init__(self, connection: sqlite3.Connection, statements: int) -> None:
        self._connection = connection
        self._left = statements

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self._left -= 1
        if self._left == 0:
            raise CrashError
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Timed(Copy):
    """Copies, counts, and sets one timer a record."""

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            state.set_timer(found.key, f"{found.offset}", now_ms + 1_000_000)
        return super().handle(batch, state, now_ms)


@pytest.mark.parametrize("statements", range(1, 25))
def test_a_commit_is_there_whole_or_not_at_all(
    opening: Callable[..., SqliteLog], statements: int
) -> None:
    """Wherever a process dies, outputs, state, timers and position say the same; the next one
    goes on from there and handles each record once.
    """
    log = opening()
    sent = [str(number).encode() for number in range(8)]
    log.append_blocking([record(value) for value in sent])
    engine = SqliteEngine(log, [Timed()], EngineSettings(records_max=2))
    committer = log._committer
    committer._connection = DyingConnection(committer._connection, statements)  # type: ignore[assignment]
    # The trace of the crash is not of interest, and slow to draw.
    with capture_logs():
        engine.start()
        with contextlib.suppress(CrashError):
            engine.drain(WAIT_S)
        engine.stop(WAIT_S)
        log.close()
    with SqliteLog.peek(log.path) as view:
        done = view.positions().get(("in", "copy"), 0)
        assert [found.value for found in view.scan("out")] == sent[:done]
        assert view.state("copy") == ({"k": {"count": done}} if done else {})
        assert len(view.timers("copy")) == done
    again = opening()
    engine = SqliteEngine(again, [Timed()], EngineSettings(records_max=2))
    engine.start()
    assert engine.drain(WAIT_S)
    assert engine.stop(WAIT_S)
    assert [found.value for found in again.scan("out")] == sent


def test_all_that_wait_share_one_commit(opening: Callable[..., SqliteLog]) -> None:
    """Appends that come together are written by few commits, one sync each."""

    async def story() -> None:
        log = opening()
        await asyncio.gather(*(log.append([record()]) for _ in range(500)))

    asyncio.run(story())
    metrics: Registry = opening.metrics  # type: ignore[attr-defined]
    assert sum(metrics.values("funicular_log_commits_total").values()) < 50


def test_appends_wait_outside_a_full_queue(opening: Callable[..., SqliteLog]) -> None:
    """With `queue_bytes_max` exceeded the next append waits for its turn, and all are written."""

    async def story() -> None:
        log = opening(queue_bytes_max=2_500)
        most = 0

        async def write() -> None:
            nonlocal most
            await log.append([record(b"x" * 1_000)])
            most = max(most, log._waiting_bytes)

        appends = [asyncio.create_task(write()) for _ in range(50)]
        await asyncio.sleep(0)
        assert 0 < log._waiting_bytes <= 2_500
        await asyncio.gather(*appends)
        assert most <= 2_500
        assert log.last_offset("in") == 49

    asyncio.run(story())


def test_an_append_over_the_transaction_limits_is_written_whole(
    opening: Callable[..., SqliteLog],
) -> None:
    """Sets above the limits of one transaction go alone, in order, each in one step."""

    async def story() -> None:
        log = opening(commit_records_max=5, commit_bytes_max=1_000, row_records_max=3)
        batches = [[record(f"{n}.{part}".encode()) for part in range(7)] for n in range(10)]
        await asyncio.gather(*(log.append(batch) for batch in batches))
        assert [found.value for found in log.scan("in")] == [
            each.value for batch in batches for each in batch
        ]

    asyncio.run(story())


def test_a_record_over_the_limit_is_the_callers_fault(opening: Callable[..., SqliteLog]) -> None:
    """A giant record is refused by its own error, and nothing beside it is touched."""
    log = opening(record_bytes_max=1_000)
    with pytest.raises(MessageError, match="record_bytes_max") as caught:
        log.append_blocking([record(), record(b"x" * 1_001)])
    assert caught.value.code == "record_too_large"
    assert log.last_offset("in") == -1


def test_topics_have_a_limit(opening: Callable[..., SqliteLog]) -> None:
    """One topic more than `topics_max` is refused; those that are there go on."""
    log = opening(topics_max=2)
    log.append_blocking([record(topic="a"), record(topic="b")])
    with pytest.raises(UsageError, match="topics_max"):
        log.append_blocking([record(topic="c")])
    log.append_blocking([record(topic="a")])


def test_a_partition_that_is_not_there_is_refused(opening: Callable[..., SqliteLog]) -> None:
    """The embedded log has partition 0 alone."""
    with pytest.raises(ValueError, match="partition 0 alone"):
        opening().append_blocking([Outgoing("in", "k", b"", {}, 3)])


def test_closing_writes_what_was_handed_over(opening: Callable[..., SqliteLog]) -> None:
    """Appends that wait when the log closes are still written and told."""

    async def story() -> SqliteLog:
        log = opening()
        appends = [asyncio.create_task(log.append([record()])) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(log.close)
        assert await asyncio.gather(*appends) == [None] * 100
        return log

    log = asyncio.run(story())
    with SqliteLog.peek(log.path) as view:
        assert view.last_offset("in") == 99
