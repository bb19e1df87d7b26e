"""What tests of sources share: a log that can be held back, the part of an ingest worker that has
sources, an integration of any transport.
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
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.source import Outside, connection_models
from pipeline.ingest.sources import Sources
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, State
from pipeline.model.record import Outgoing
from pipeline.model.uplink import Link
from pipeline.ports import Lease
from pipeline.rulebook.book import Authentication, Integration, Rulebook
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Transport, handovers

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

    def bodies(self) -> list[bytes]:
        return [record.value or b"" for record in self.records]

    def numbers(self) -> list[int]:
        """Return the `n` of each body."""
        return [orjson.loads(body)["n"] for body in self.bodies()]

    def letters(self) -> list[DeadLetter]:
        """Return what was buried here."""
        return [
            msgspec.json.decode(record.value or b"", type=DeadLetter)
            for record in self.records
            if record.topic == "dead.letter"
        ]


class Leases:
    """All leases, held by whoever asks; cursors are kept with the records (`ports.Leases`)."""

    def __init__(self) -> None:
        self.log = HeldLog()
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
    """The part of an ingest worker that this is about: a door and its sources, over `log`."""

    def __init__(
        self,
        log: Any,
        *integrations: Integration,
        worker: str = "w1",
        leases: Leases | None = None,
    ) -> None:
        self.log = log
        self.book = {each.name: each for each in integrations}
        settings = IngestSettings(source_pause_s=0.05, source_pause_s_max=0.2, worker=worker)
        ids = iter(range(1_000_000))
        door = Door(log, self.rulebooks, Waiting("i", 10), Reports(log, lambda: NOW_MS, 10),
                    settings, new_id=lambda: f"id{next(ids)}", now_ms=lambda: NOW_MS)  # fmt: skip
        self.bugs: list[BaseException] = []
        self.sources = Sources(door, log, self.rulebooks, settings, now_ms=lambda: NOW_MS,
                               on_bug=self.bugs.append, outside=Outside(leases))  # fmt: skip

    def rulebooks(self) -> dict[str, Rulebook]:
        return {"acme": Rulebook("acme", Path(), "v1", self.book, {}, {}, {})}

    def status(self) -> Any:
        (only,) = self.sources.status()
        return only


def integration(
    dialect: str, transport: str, options: dict[str, Any] | None = None, **connection: Any
) -> Integration:
    """Return tenant `acme`'s integration `over-<dialect>`."""
    chosen = dialects()[dialect]
    return Integration(
        tenant="acme", name=f"over-{dialect}", dialect=chosen,
        options=chosen.options.model_validate(options or {}),
        authentication=Authentication(), device_template=chosen.device_template, converter=None,
        synchronous=False, answer_timeout_s=5, unanswered="requeue", queue_max=10,
        body_bytes_max=BODY_BYTES_MAX, ordered=True, metadata={}, device_type="",
        transport=transport, connection=connection_models()[transport].model_validate(connection),
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
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - it is about other tasks and another process
            await asyncio.sleep(0.01)


def handover(made: Integration) -> Transport:
    """Return the way out of an integration's downlinks, not yet open."""
    context = Context("acme", f"downlink-{made.name}", SinkSettings(), lambda: NOW_MS)
    return handovers()[made.transport](made, context)


def downlink(number: int, device: str = "d1", **link: str) -> Delivery:
    """Return the delivery of a downlink of one byte."""
    asked = Downlink(
        id=f"l{number}", tenant="acme", device=device, integration="i", state=State.SENDING,
        requested_ms=1, changed_ms=1, payload=bytes([number]), f_port=1,
    )  # fmt: skip
    return Delivery(id=f"{number}", tenant="acme", device=device, destination="x", time_ms=1,
                    downlink=asked, link=Link(**link) if link else None)  # fmt: skip
