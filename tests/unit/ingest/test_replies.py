"""The reader of topic `reply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pipeline.errors import RetryableError
from pipeline.ingest import replies as module
from pipeline.model.record import Record
from pipeline.model.reply import Reply
from pipeline.topics import DEVICE_EVENTS, REPLY

if TYPE_CHECKING:
    from conftest import World


def test_a_reply_reaches_who_waits(world: World) -> None:
    """A record with this process's key wakes its request; the reader is this process's own."""

    async def work() -> None:
        waiter = world.waiting.open("r1")
        world.log.reply(Reply("r1", device="d1"), world.instance)
        assert [r.device for r in await waiter.replies(60)] == ["d1"]
        await world.turns()

    world.run(work)

    assert world.log.reader.topic == REPLY
    assert world.log.reader.group == "ingest-inst"
    assert world.log.reader.committed == [1]


def test_replies_of_others_are_passed_over(world: World) -> None:
    """A record for another process is not even looked into; its downlink is not reported."""

    async def work() -> None:
        waiter = world.waiting.open("r1")
        record = Record(REPLY, 0, 7, 0, "other", b"not json", {})
        world.log.reader.queue.put_nowait([record])
        world.log.reply(Reply("r1", downlink_id="down"), "other")
        await world.turns()
        assert await waiter.replies(0) == []
        await world.reports.flush()

    world.run(work)

    assert world.log.records == []


def test_a_late_downlink_is_reported(world: World) -> None:
    """A downlink for a request that is over goes back to the queue as too late; a late reply
    without one is nothing.
    """

    async def work() -> None:
        world.log.reply(Reply("gone", device="d1", downlink_id="down"), world.instance, "umbrella")
        world.log.reply(Reply("gone", device="d2"), world.instance)
        await world.turns()
        await world.reports.flush()

    world.run(work)

    (record,) = world.log.records
    assert record.key == "umbrella/d1"
    assert record.headers["trace"] == "trace-gone"
    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "queued", "downlink_id": "down", "reason": "too_late"}


def test_rubbish_does_not_stop_the_reader(world: World) -> None:
    """Records that are no replies are told of, once each, and passed over."""

    async def work() -> None:
        waiter = world.waiting.open("r1")
        rubbish = [b"", b"{", b'{"request": 1}', b'{"request":"\xff"}', b"[" * 5_000]
        batch = [Record(REPLY, 0, i, 0, world.instance, v, {}) for i, v in enumerate(rubbish)]
        late = world.log.reply_record(Reply("x", downlink_id="d"), world.instance, tenant="")
        world.log.reader.queue.put_nowait([*batch, late])
        world.log.reply(Reply("r1"), world.instance)
        assert len(await waiter.replies(60)) == 1
        await world.turns()

    with capture_logs() as logs:
        world.run(work)

    told = [line["event"] for line in logs]
    assert told == ["a reply is not readable"] * 5 + ["a late reply does not say its tenant"]


def test_the_reader_outlives_the_logs_faults(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of the world it reads on; when the log closes it ends."""
    monkeypatch.setattr(module, "BACKOFF_S", 0)

    async def work() -> None:
        waiter = world.waiting.open("r1")
        world.log.reader.queue.put_nowait(RetryableError("away"))
        world.log.reply(Reply("r1"), world.instance)
        assert len(await waiter.replies(60)) == 1

        reader = world.log.reader
        await world.replies.close()
        assert reader.closed

    world.run(work)


def test_the_end_of_the_log_ends_the_reader(world: World) -> None:
    """When `batches` ends, so does `run`."""

    async def work() -> None:
        world.replies.open()
        world.log.reader.queue.put_nowait(None)
        await world.replies.run(lambda: 0.0)

    world.run(work)


def test_a_position_that_is_not_stored_is_no_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position only lets the log delete; replies flow on without it."""

    async def fail(self: object, offset: int, records: object = ()) -> None:
        raise RetryableError("full")

    async def work() -> None:
        monkeypatch.setattr(type(world.log.reader), "commit", fail)
        for request in ("r1", "r2"):
            waiter = world.waiting.open(request)
            world.log.reply(Reply(request), world.instance)
            assert len(await waiter.replies(60)) == 1
        await world.turns()

    with capture_logs() as logs:
        world.run(work)

    assert {line["event"] for line in logs} == {"the position in the reply topic is not stored"}
