"""What tests of sources share: a log that can be held back, the part of an ingest worker that has
sources and windows, an integration of any transport.
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
from pipeline.ingest.source import ALONE, Outside, connection_models
from pipeline.ingest.sources import Sources
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, State
from pipeline.model.event import DownlinkReport
from pipeline.model.record import REPLY_TO, TENANT, TRACE_ID, Outgoing, Record
from pipeline.model.reply import Reply, ReplyTo, read_reply_to
from pipeline.model.uplink import Link
from pipeline.ports import Lease
from pipeline.rulebook.book import Authentication, Integration, Rulebook
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Transport, handover_of
from pipeline.topics import DEAD_LETTER, DEVICE_EVENTS, REPLY, UPLINK_RECEIVED

NOW_MS = 1_790_000_000_000
WITHIN_S = 20.0
BODY_BYTES_MAX = 10_000


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

    def uplinks(self) -> list[Outgoing]:
        return self.of(UPLINK_RECEIVED)

    def bodies(self) -> list[bytes]:
        """Return what came of messages, dead letters aside."""
        return [record.value or b"" for record in self.uplinks()]

    def numbers(self) -> list[int]:
        """Return the `n` of each body."""
        return [orjson.loads(body)["n"] for body in self.bodies()]

    def letters(self) -> list[DeadLetter]:
        """Return what was buried here."""
        return [msgspec.json.decode(e.value or b"", type=DeadLetter) for e in self.of(DEAD_LETTER)]


class Leases:
    """All leases, held by whoever asks; cursors are kept with the records of `log`, and outlive a
    process (`ports.Leases`).
    """

    def __init__(self, log: HeldLog | None = None) -> None:
        self.log = log or HeldLog()
        self.cursors: dict[str, Any] = {}
        self.trouble = ""

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:
        yield _Lease(self, name)

    def owner(self, name: str) -> str:
        return ""

    async def close(self) -> None:
        """Nothing is held."""


class _Lease:
    valid = True

    def __init__(self, leases: Leases, name: str) -> None:
        self._leases = leases
        self._name = name

    async def lost(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def cursor(self) -> Any:
        return self._leases.cursors.get(self._name)

    async def append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        await self._leases.log.append(records)
        self._leases.cursors[self._name] = cursor


class Process:
    """The part of an ingest worker that this is about: a door, its sources and its windows, over
    `log`. `worker` is its name, by which brokers know it; `instance`, by which replies do.
    """

    def __init__(
        self,
        log: Any,
        *integrations: Integration,
        worker: str = "w1",
        instance: str = "i1",
        outside: Outside = ALONE,
    ) -> None:
        self.log: Any = log
        self.now_ms = NOW_MS
        self.book = {each.name: each for each in integrations}
        settings = IngestSettings(source_pause_s=0.05, source_pause_s_max=0.2, worker=worker)
        ids = iter(range(1_000_000))
        self.waiting = Waiting(instance, 10_000)
        self.reports = Reports(log, self._now, 10_000)
        self.replies = Replies(log, self.waiting, self.reports, batch_max=9, commit_s=9)
        self.door = Door(log, self.rulebooks, self.waiting, self.reports, settings,
                         new_id=lambda: f"{instance}-{next(ids)}", now_ms=self._now)  # fmt: skip
        self.bugs: list[BaseException] = []
        self.sources = Sources(self.door, log, self.rulebooks, settings, now_ms=self._now,
                               on_bug=self.bugs.append, outside=outside)  # fmt: skip

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


def integration(
    dialect: str, transport: str, options: dict[str, Any] | None = None, **connection: Any
) -> Integration:
    """Return tenant `acme`'s integration `over-<dialect>`. Over HTTP it has no connection."""
    chosen = dialects()[dialect]
    model = connection_models().get(transport)
    return Integration(
        tenant="acme", name=f"over-{dialect}", dialect=chosen,
        options=chosen.options.model_validate(options or {}),
        authentication=Authentication(), device_template=chosen.device_template, converter=None,
        synchronous=False, answer_timeout_s=5, unanswered="requeue", queue_max=10,
        body_bytes_max=BODY_BYTES_MAX, ordered=True, metadata={}, device_type="",
        transport=transport, connection=model and model.model_validate(connection),
    )  # fmt: skip


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    """Run processes, connected, while the block lasts."""
    try:
        for process in processes:
            await process.sources.refresh()
            await until(lambda each=process: each.status().connects or each.bugs)
        yield
    finally:
        for process in processes:
            await process.sources.stop()
            assert not process.bugs


async def until(true: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    """Wait in short steps until something is true."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - it is about other tasks and another process
            await asyncio.sleep(0.01)


def handover(made: Integration) -> Transport:
    """Return the way out of an integration's downlinks, not yet open."""
    context = Context("acme", f"downlink-{made.name}", SinkSettings(), lambda: NOW_MS)
    way_out = handover_of(made.transport)
    assert way_out is not None
    return way_out(made, context)


def downlink(number: int, device: str = "d1", **link: str) -> Delivery:
    """Return the delivery of a downlink of one byte."""
    asked = Downlink(
        id=f"l{number}", tenant="acme", device=device, integration="i", state=State.SENDING,
        requested_ms=1, changed_ms=1, payload=bytes([number]), f_port=1,
    )  # fmt: skip
    return Delivery(id=f"{number}", tenant="acme", device=device, destination="x", time_ms=1,
                    downlink=asked, link=Link(**link) if link else None)  # fmt: skip
