"""What `ports.Log` and `ports.Reader` promise, on every engine that has a log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from pipeline.errors import ClosedError, UsageError
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Reader
from tests.contract.engine_harness import SqliteHarness, engines, record, values

WAIT_S = 10


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteHarness]:
    """One engine of the suite, stopped at the end."""
    found: SqliteHarness = request.param(tmp_path)
    yield found
    found.stop()


async def take(reader: Reader, count: int, records_max: int = 100) -> list[Record]:
    """Return the reader's next records, `count` in all."""
    found: list[Record] = []
    batches: AsyncIterator[Sequence[Record]] = reader.batches(records_max)
    async with asyncio.timeout(WAIT_S), aclosing(batches):  # type: ignore[type-var]
        async for batch in batches:
            assert 0 < len(batch) <= records_max
            found += batch
            if len(found) >= count:
                return found
    return found


@engines("log")
def test_an_append_is_there_when_it_returns(harness: SqliteHarness) -> None:
    """What `append` returned for can be read at once, by whoever opens the log to look."""

    async def story() -> None:
        await harness.open().append([record("k", "a"), record("k", "b", "other")])
        assert values(harness.records("in")) == ["a"]
        assert values(harness.records("other")) == ["b"]
        await harness.open().append([])

    asyncio.run(story())


@engines("log")
def test_concurrent_appends_keep_their_own_order(harness: SqliteHarness) -> None:
    """Many appends at once all arrive, each one's records side by side and in order."""

    async def story() -> None:
        log = harness.open()

        async def write(name: str) -> None:
            for number in range(10):
                await log.append([record(name, f"{name}.{number}.{part}") for part in range(3)])

        await asyncio.gather(*(write(f"w{number}") for number in range(20)))

    asyncio.run(story())
    found = harness.records("in")
    assert [each.offset for each in found] == list(range(600))
    for start in range(0, 600, 3):
        heads = {value.rpartition(".")[0] for value in values(found[start : start + 3])}
        assert len(heads) == 1
    for name in ("w0", "w19"):
        mine = [value for value in values(found) if value.startswith(f"{name}.")]
        assert mine == [f"{name}.{number}.{part}" for number in range(10) for part in range(3)]


@engines("log")
def test_a_new_group_starts_at_the_earliest_record(harness: SqliteHarness) -> None:
    """A group that nobody knew gets all that is there, in bounded batches, then what comes."""

    async def story() -> None:
        log = harness.open()
        await log.append([record("k", str(number)) for number in range(25)])
        reader = log.read("in", "g")
        reading = asyncio.create_task(take(reader, 26, records_max=10))
        await asyncio.sleep(0)
        await log.append([record("k", "25")])
        assert values(await reading) == [str(number) for number in range(26)]

    asyncio.run(story())


@engines("log")
def test_a_topic_that_does_not_exist_yet_can_be_read(harness: SqliteHarness) -> None:
    """A reader of a topic that nobody wrote to waits, and gets the first record."""

    async def story() -> None:
        log = harness.open()
        reading = asyncio.create_task(take(log.read("later", "g"), 1))
        await asyncio.sleep(0)
        await log.append([record("k", "first", "later")])
        assert values(await reading) == ["first"]

    asyncio.run(story())


@engines("log")
def test_from_end_gives_only_what_comes(harness: SqliteHarness) -> None:
    """A new group that begins at the end stands there when `read` returns."""

    async def story() -> None:
        log = harness.open()
        await log.append([record("k", "old")])
        reader = log.read("in", "g", from_end=True)
        await log.append([record("k", "new")])
        assert values(await take(reader, 1)) == ["new"]
        await reader.commit(1)
        await reader.close()
        await log.append([record("k", "newer")])
        again = log.read("in", "g", from_end=True)
        assert values(await take(again, 1)) == ["newer"]

    asyncio.run(story())


@engines("log")
def test_a_group_goes_on_past_what_it_committed(harness: SqliteHarness) -> None:
    """What was committed does not come again, what was only read does; also after a restart."""

    async def first() -> None:
        log = harness.open()
        await log.append([record("k", str(number)) for number in range(10)])
        reader = log.read("in", "g")
        await take(reader, 10)
        await reader.commit(3)
        await reader.close()
        assert values(await take(log.read("in", "g"), 6))[0] == "4"

    async def second() -> None:
        assert values(await take(harness.open().read("in", "g"), 6))[0] == "4"

    asyncio.run(first())
    harness.stop()
    asyncio.run(second())


@engines("log")
def test_groups_do_not_touch_each_other(harness: SqliteHarness) -> None:
    """Each group has its own position on a topic."""

    async def story() -> None:
        log = harness.open()
        await log.append([record("k", str(number)) for number in range(4)])
        one, other = log.read("in", "one"), log.read("in", "other")
        await take(one, 4)
        await one.commit(3)
        assert len(await take(other, 4)) == 4
        assert log.positions() == {("in", "one"): 4, ("in", "other"): 0}
        assert log.lag() == {("in", "one"): 0, ("in", "other"): 4}

    asyncio.run(story())


@engines("log")
def test_a_commit_appends_and_moves_in_one_step(harness: SqliteHarness) -> None:
    """A reader's records and its position are there together."""

    async def story() -> None:
        log = harness.open()
        await log.append([record("k", "a"), record("k", "b")])
        reader = log.read("in", "g")
        await take(reader, 2)
        await reader.commit(0, [record("k", "outcome", "events"), Outgoing("x", "k", None, {})])
        assert values(harness.records("events")) == ["outcome"]
        assert log.positions()["in", "g"] == 1

    asyncio.run(story())


@engines("log")
def test_a_position_does_not_go_back(harness: SqliteHarness) -> None:
    """Committing an offset below the position leaves the position."""

    async def story() -> None:
        log = harness.open()
        await log.append([record("k", "a"), record("k", "b")])
        reader = log.read("in", "g")
        await reader.commit(1)
        await reader.commit(0)
        assert log.positions()["in", "g"] == 2

    asyncio.run(story())


@engines("log")
def test_readers_end_when_the_log_closes(harness: SqliteHarness) -> None:
    """A reader that waits ends without an error; appends and commits then say ClosedError."""

    async def story() -> None:
        log = harness.open()
        reader = log.read("in", "g")
        reading = asyncio.create_task(take(reader, 1))
        closed = log.read("in", "other")
        waiting = asyncio.create_task(take(closed, 1))
        await asyncio.sleep(0.01)
        await closed.close()
        assert await waiting == []
        await asyncio.to_thread(log.close)
        assert await reading == []
        with pytest.raises(ClosedError):
            await log.append([record("k", "a")])
        with pytest.raises(ClosedError):
            await reader.commit(0)
        with pytest.raises(ClosedError):
            log.read("in", "g")

    asyncio.run(story())


@engines("log")
def test_a_caller_that_goes_away_does_not_disturb_the_others(harness: SqliteHarness) -> None:
    """Cancelling one append leaves those beside it, and the log, as they are."""

    async def story() -> None:
        log = harness.open()
        appends = [asyncio.create_task(log.append([record("k", str(n))])) for n in range(20)]
        await asyncio.sleep(0)
        appends[3].cancel()
        done = await asyncio.gather(*appends, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in done) <= 1
        await log.append([record("k", "after")])

    asyncio.run(story())
    found = values(harness.records("in"))
    assert found[-1] == "after"
    assert set(found) >= {str(n) for n in range(20) if n != 3}


@engines("log")
def test_a_log_has_one_owner(harness: SqliteHarness) -> None:
    """Opening a log that is open is refused with who has it; after a close it may be opened."""
    harness.open()
    other = type(harness)(harness.path.parent)
    with pytest.raises(UsageError, match=r"is open in process \d+"):
        other.open()
    harness.stop()
    other.open()
    other.stop()
