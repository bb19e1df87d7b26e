"""Leases on the embedded log: always ours; records and cursor in one step."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.errors import StorageFullError
from pipeline.model.record import Outgoing
from pipeline.stream.leases import NoLeases, to_the_end
from pipeline.stream.settings import LogSettings
from pipeline.stream.sqlite import SqliteLog
from pipeline.stream.sqlite_leases import EmbeddedLeases


def record(text: str) -> Outgoing:
    return Outgoing("t", "k", text.encode(), {})


async def test_records_and_cursor_outlive_the_process(tmp_path: Path) -> None:
    """Who opens the log again reads the last cursor of each name, and the records that it is of."""
    path = tmp_path / "log.db"
    with SqliteLog.open(path) as log:
        leases = EmbeddedLeases(log)
        async with leases.hold("acme/barn") as lease:
            assert lease.valid
            assert await lease.cursor() is None
            await lease.append([record("one")], {"after": "x"})
            await lease.append([], {"after": "y"})
        async with leases.hold("acme/other") as lease:
            assert await lease.cursor() is None
        assert leases.owner("acme/barn") == leases.trouble == ""
        await leases.close()
    with SqliteLog.open(path) as log:
        async with EmbeddedLeases(log).hold("acme/barn") as lease:
            assert await lease.cursor() == {"after": "y"}
        assert [each.value for each in log.scan("t")] == [b"one"]


async def test_a_full_log_takes_neither(tmp_path: Path) -> None:
    """Where there is no room for the records the cursor stays as it was."""
    settings = LogSettings(log_bytes_max=200_000)
    with SqliteLog.open(tmp_path / "log.db", settings) as log:
        async with EmbeddedLeases(log).hold("acme/barn") as lease:
            await lease.append([record("one")], 1)
            with pytest.raises(StorageFullError):
                await lease.append([record("x" * 300_000)], 2)
            assert await lease.cursor() == 1


async def test_a_cancelled_append_has_ended(tmp_path: Path) -> None:
    """Who is cancelled in the middle goes on only when the write is there: the cursor that is read
    next is the new one.
    """
    with SqliteLog.open(tmp_path / "log.db") as log:
        async with EmbeddedLeases(log).hold("acme/barn") as lease:
            task = asyncio.ensure_future(lease.append([record("one")], 7))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await lease.cursor() == 7


async def test_a_lease_of_the_embedded_log_is_never_lost(tmp_path: Path) -> None:
    """`lost` does not return."""
    with SqliteLog.open(tmp_path / "log.db") as log:
        async with EmbeddedLeases(log).hold("acme/barn") as lease:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await lease.lost()


async def test_nobody_gets_what_nobody_has() -> None:
    """Where leases are not to be had, who asks waits, and `trouble` says why."""
    leases = NoLeases("no library")

    async def ask() -> None:
        async with leases.hold("acme/barn"):
            raise AssertionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ask()
    assert (leases.trouble, leases.owner("acme/barn")) == ("no library", "")
    await leases.close()


async def test_what_is_to_end_raises_as_it_does() -> None:
    """An error of the work is the caller's; a cancelled caller hears nothing of it."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await to_the_end(fail())
    task = asyncio.ensure_future(to_the_end(fail()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
