"""What the tests of transports on which Funicular listens share: an ingest worker's doors over a
log that a test holds in its hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson

from pipeline.ingest.door import Door
from pipeline.ingest.replies import Replies
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.source import sources
from pipeline.ingest.sources import Sources
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.event import DownlinkReport
from pipeline.model.record import REPLY_TO, TENANT, TRACE_ID, Outgoing, Record
from pipeline.model.reply import Reply, ReplyTo, read_reply_to
from pipeline.rulebook.book import Authentication, Integration, Rulebook
from pipeline.topics import DEAD_LETTER, DEVICE_EVENTS, REPLY, UPLINK_RECEIVED
from tests.real.servers import free_port

WITHIN_S = 20.0
NOW_MS = 1_790_000_000_000
BY_QUERY = {"device_query": "device"}


class HeldLog:
    """Keeps records in a list, when it may: `open` is cleared to hold all appends back."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.fail: Exception | None = None

    async def append(self, records: Sequence[Outgoing]) -> None:
        self.asked += len(records)
        await self.open.wait()
        if self.fail is not None:
            raise self.fail
        self.records += records

    def of(self, topic: str) -> list[Outgoing]:
        return [record for record in self.records if record.topic == topic]

    @property
    def uplinks(self) -> list[Outgoing]:
        return self.of(UPLINK_RECEIVED)

    @property
    def bodies(self) -> list[bytes]:
        return [record.value or b"" for record in self.uplinks]

    @property
    def letters(self) -> list[DeadLetter]:
        return [msgspec.json.decode(e.value or b"", type=DeadLetter) for e in self.of(DEAD_LETTER)]


class Worker:
    """The part of an ingest worker that this is about: a door, its sources, its windows."""

    def __init__(self, *integrations: Integration, instance: str = "i1") -> None:
        self.log: Any = HeldLog()
        self.now_ms = NOW_MS
        self.book = {each.name: each for each in integrations}
        settings = IngestSettings(source_pause_s=0.05, source_pause_s_max=0.2)
        ids = iter(range(1_000_000))
        self.waiting = Waiting(instance, 10_000)
        self.reports = Reports(self.log, lambda: self.now_ms, 10_000)
        self.replies = Replies(self.log, self.waiting, self.reports, batch_max=9, commit_s=9)
        door = Door(self.log, self.rulebooks, self.waiting, self.reports, settings,
                    new_id=lambda: f"{instance}-{next(ids)}", now_ms=self._now)  # fmt: skip
        self.bugs: list[BaseException] = []
        self.sources = Sources(door, self.log, self.rulebooks, settings,
                               now_ms=lambda: self.now_ms, on_bug=self.bugs.append)  # fmt: skip

    def _now(self) -> int:
        return self.now_ms

    def rulebooks(self) -> dict[str, Rulebook]:
        return {"acme": Rulebook("acme", Path(), "v1", self.book, {}, {}, {})}

    def status(self) -> Any:
        (only,) = self.sources.status()
        return only

    def way_to(self, device: str) -> ReplyTo:
        """Return the window that the device's last message, or its handshake, told of."""
        key = f"acme/{device}"
        told = [each.headers.get(REPLY_TO) for each in self.log.records if each.key == key]
        found = read_reply_to([header for header in told if header][-1])
        assert found is not None
        return found

    def send(self, way: ReplyTo, downlink_id: str, payload: bytes, device: str = "d1") -> None:
        """Do what the downlink stage does: send a downlink to a window."""
        reply = Reply(way.request, device=device, downlink_id=downlink_id, payload=payload)
        headers = {TENANT: "acme", TRACE_ID: "t"}
        value = msgspec.json.encode(reply)
        self.replies.take([Record(REPLY, 0, 1, 1, way.instance, value, headers)])

    async def told(self, count: int) -> list[tuple[str, str, str]]:
        """Return (downlink, state, reason) of the first `count` reports, once they are there."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                await self.reports.flush()
                found = [_report(each) for each in self.log.of(DEVICE_EVENTS) if _is_report(each)]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.01)


def _is_report(record: Outgoing) -> bool:
    return bool(orjson.loads(record.value or b"")["kind"] == "report")


def _report(record: Outgoing) -> tuple[str, str, str]:
    report = msgspec.json.decode(record.value or b"", type=DownlinkReport).report
    return report.downlink_id, str(report.state), report.reason


def integration(transport: str, options: dict[str, Any] | None = None, **given: Any) -> Integration:
    """Return an integration of the dialect `http` over a transport, on a free port."""
    dialect = dialects()["http"]
    connection = sources()[transport].Config.model_validate({"port": free_port(), **given})
    return Integration(
        tenant="acme", name="meters", dialect=dialect,
        options=dialect.options.model_validate(options or {}), authentication=Authentication(),
        device_template=dialect.device_template, converter=None, synchronous=True,
        answer_timeout_s=2, unanswered="requeue", queue_max=10, body_bytes_max=100_000,
        ordered=True, metadata={}, device_type="", transport=transport, connection=connection,
    )  # fmt: skip


@asynccontextmanager
async def listening(worker: Worker) -> AsyncIterator[int]:
    """Let a worker listen; gives the port. Nothing that a client does is a bug of ours."""
    try:
        await worker.sources.refresh()
        await until(lambda: worker.status().connects)
        (only,) = worker.book.values()
        yield only.connection.port
    finally:
        await worker.sources.stop()
        assert not worker.bugs


async def until(true: Callable[[], Any]) -> None:
    """Wait in short steps until something is true."""
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - it is about sockets, and other tasks
            await asyncio.sleep(0.005)
