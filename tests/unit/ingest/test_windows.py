"""Windows at an ingest worker: what is sent to them leaves once, and what became of it is told."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from pipeline.ingest.replies import Replies
from pipeline.ingest.reports import Reports
from pipeline.ingest.waiting import Waiting
from pipeline.ingest.windows import TAKEN_MAX, Leaving, Window
from pipeline.model.event import DownlinkReport
from pipeline.model.record import TENANT, TRACE_ID, Outgoing, Record
from pipeline.model.reply import Reply, read_reply_to
from pipeline.topics import REPLY


class Worker:
    """The part of an ingest worker that windows need."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.stored: list[Outgoing] = []
        self.waiting = Waiting("inst", 100)
        self.reports = Reports(self, lambda: self.now_ms, 100)  # type: ignore[arg-type]
        self.replies = Replies(None, self.waiting, self.reports, batch_max=9, commit_s=9)  # type: ignore[arg-type]
        self.left: list[Leaving] = []

    def window(self, request: str = "w1", lasts_s: float = 30) -> Window:
        return Window(
            self.waiting,
            self.reports,
            self.left.append,
            tenant="acme",
            request=request,
            lasts_s=lasts_s,
            now_ms=lambda: self.now_ms,
        )

    def send(self, downlink_id: str, request: str = "w1", **more: Any) -> None:
        reply = Reply(request, device="d", downlink_id=downlink_id, **more)
        headers = {TENANT: "acme", TRACE_ID: "trace-1"}
        value = msgspec.json.encode(reply)
        self.replies.take([Record(REPLY, 0, 1, 1, "inst", value, headers)])

    async def append(self, records: Any) -> None:
        self.stored += records

    async def told(self) -> list[tuple[str, str, str]]:
        """Return (downlink, state, reason) of the reports, and forget them."""
        await self.reports.flush()
        events = [
            msgspec.json.decode(each.value or b"", type=DownlinkReport) for each in self.stored
        ]
        assert all(each.headers[TRACE_ID] == "trace-1" for each in self.stored)
        self.stored = []
        return [(e.report.downlink_id, str(e.report.state), e.report.reason) for e in events]


async def test_a_downlink_leaves_and_is_told_of() -> None:
    """What the stages send to a window is handed over, and its outcome goes to the device's log."""
    worker = Worker()
    worker.window()
    worker.send("l1", payload=b"\x01")

    (leaving,) = worker.left
    assert (leaving.body, leaving.device) == (b"\x01", "d")
    leaving.told("answered")
    leaving.told("not_answered")
    assert await worker.told() == [("l1", "sent", "")], "the first word counts"


async def test_fields_leave_as_json() -> None:
    """A downlink without bytes goes as the JSON of its fields."""
    worker = Worker()
    worker.window()
    worker.send("l1", fields={"on": True})

    assert orjson.loads(worker.left[0].body) == {"on": True}


async def test_what_cannot_leave_has_failed() -> None:
    """A downlink that the connection cannot say ends, with the reason in words."""
    worker = Worker()
    worker.window()
    worker.send("l1", payload=b"\n")
    worker.left[0].told("refused", "it holds the delimiter")

    await worker.reports.flush()
    event = msgspec.json.decode(worker.stored[0].value or b"", type=DownlinkReport)
    assert (str(event.report.state), event.report.reason) == ("failed", "refused")
    assert event.report.detail == {"message": "it holds the delimiter"}


async def test_a_closed_window_takes_nothing() -> None:
    """What comes after the end is reported as too late, so that it waits for the next window."""
    worker = Worker()
    window = worker.window()
    window.close()
    window.close()
    worker.send("l1", payload=b"\x01")

    assert worker.left == []
    assert await worker.told() == [("l1", "queued", "too_late")]


async def test_one_downlink_leaves_once() -> None:
    """An engine that writes at least once sends it twice: it leaves once, also when the second one
    comes after the window's end.
    """
    worker = Worker()
    window = worker.window()
    worker.send("l1", payload=b"\x01")
    worker.send("l1", payload=b"\x01")
    window.close()
    worker.send("l1", payload=b"\x01")

    assert len(worker.left) == 1
    assert await worker.told() == []


async def test_empty_answers_pass() -> None:
    """That nothing waits for a device is no news for its window."""
    worker = Worker()
    worker.window()
    worker.send("")

    assert worker.left == []
    assert await worker.told() == []


def test_the_way_back_changes_seldom() -> None:
    """Messages in a row carry one header, so that the stages need not write at each; it always
    promises what the window lasts.
    """
    worker = Worker()
    window = worker.window(lasts_s=30)
    seen = []
    for _ in range(100):
        text = window.way_back()
        reply_to = read_reply_to(text)
        assert reply_to is not None
        assert reply_to.deadline_ms - worker.now_ms >= 30_000
        assert (reply_to.instance, reply_to.request, reply_to.mode) == ("inst", "w1", "open")
        seen.append(text)
        worker.now_ms += 1_000

    assert len(set(seen)) == 4


async def test_what_a_window_remembers_is_bounded() -> None:
    """A connection of years keeps no list of all that ever left by it."""
    worker = Worker()
    window = worker.window()
    for number in range(2 * TAKEN_MAX):
        worker.send(f"l{number}", payload=b"")

    assert len(window._taken) == TAKEN_MAX
    assert len(worker.left) == 2 * TAKEN_MAX
