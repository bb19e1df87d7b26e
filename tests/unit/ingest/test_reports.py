"""Reports of downlinks that left in an answer, or did not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pipeline.errors import RetryableError
from pipeline.ingest import reports as module
from pipeline.model.record import ID_LENGTH_MAX
from pipeline.model.reply import Reply
from pipeline.topics import DEVICE_EVENTS

if TYPE_CHECKING:
    from conftest import World


def reply(downlink_id: str, request: str = "r1", device: str = "d/1") -> Reply:
    return Reply(request, device=device, downlink_id=downlink_id)


def test_a_report_is_an_event_of_its_device(world: World) -> None:
    """An answered downlink becomes `sent`; the record is keyed by its device and carries the
    uplink's trace.
    """

    async def work() -> None:
        world.reports.add("acme", reply("down1"), "up1", "answered")
        await world.reports.flush()

    world.run(work)

    (record,) = world.log.records
    assert (record.topic, record.key) == (DEVICE_EVENTS, "acme/d/1")
    assert {k: record.headers[k] for k in ("trace", "cause", "tenant")} == {
        "trace": "up1",
        "cause": "r1",
        "tenant": "acme",
    }
    (event,) = world.log.events(DEVICE_EVENTS)
    assert event == {
        "kind": "report",
        "id": record.headers["id"],
        "tenant": "acme",
        "device": "d/1",
        "time_ms": world.now_ms,
        "report": {"state": "sent", "downlink_id": "down1"},
    }


@pytest.mark.parametrize("outcome", ["not_answered", "too_late"])
def test_an_answer_that_did_not_leave_puts_back(world: World, outcome: str) -> None:
    """Otherwise the downlink goes back to `queued`, and the reason says whether it may have
    arrived.
    """

    async def work() -> None:
        world.reports.add("acme", reply("down1"), "up1", outcome)  # type: ignore[arg-type]
        await world.reports.flush()

    world.run(work)

    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "queued", "downlink_id": "down1", "reason": outcome}


def test_ids_are_the_reports_own_and_stable(world: World) -> None:
    """The same report has the same id always; other downlinks, requests and outcomes have
    others, also where ids are as long as they may be.
    """
    long = "f" * (ID_LENGTH_MAX - 2)

    async def work() -> None:
        for downlink, request, outcome in [
            (f"{long}.1", long, "answered"),
            (f"{long}.1", long, "answered"),
            (f"{long}.2", long, "answered"),
            (f"{long}.1", f"{long}x", "answered"),
            (f"{long}.1", long, "too_late"),
        ]:
            world.reports.add("acme", reply(downlink, request), "up", outcome)  # type: ignore[arg-type]
        await world.reports.flush()

    world.run(work)

    first, again, *others = [event["id"] for event in world.log.events(DEVICE_EVENTS)]
    assert first == again
    assert len({first, *others}) == 4
    assert all(len(one) <= ID_LENGTH_MAX for one in (first, *others))


def test_reports_are_stored_in_batches(world: World) -> None:
    """What is added at one moment is appended together, in order."""

    async def work() -> None:
        for i in range(2 * module.BATCH_MAX + 1):
            world.reports.add("acme", reply(f"d{i}"), "up", "answered")
        await world.turns()

    world.run(work)

    assert world.log.appends == [module.BATCH_MAX, module.BATCH_MAX, 1]
    told = [event["report"]["downlink_id"] for event in world.log.events(DEVICE_EVENTS)]
    assert told == [f"d{i}" for i in range(2 * module.BATCH_MAX + 1)]


def test_reports_wait_for_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the log takes none, reports are kept and tried again; too many of them close the
    door for synchronous requests.
    """
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.0)

    async def work() -> None:
        world.log.fail = RetryableError("full")
        for i in range(3):
            world.reports.add("acme", reply(f"d{i}"), "up", "answered")
        await world.turns(20)
        assert len(world.reports) == 3
        assert not world.reports.full
        world.reports._reports_max = 3
        assert world.reports.full
        world.log.fail = None
        await asyncio.sleep(0.01)
        await world.turns()

    world.run(work)

    assert len(world.log.events(DEVICE_EVENTS)) == 3
    assert len(world.reports) == 0


def test_flush_says_what_could_not_be_stored(world: World) -> None:
    """At the end, reports that the log does not take are counted in the program's log."""

    async def work() -> None:
        world.log.fail = RetryableError("full")
        world.reports.add("acme", reply("d"), "up", "answered")
        with pytest.raises(RetryableError):
            await world.reports.flush()

    with capture_logs() as logs:
        world.run(work)

    assert [(line["event"][:16], line["reports"]) for line in logs] == [("reports are lost", 1)]
