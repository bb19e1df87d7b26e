"""What one worker alone may run: it runs while the lease is held, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.errors import LeaseLostError
from pipeline.ingest import source as port
from pipeline.ingest import sources as sources_module
from pipeline.ingest.door import Door
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.source import Context, Health, Inlet, Outside
from pipeline.ingest.sources import Sources
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.model.http import Request
from pipeline.model.record import Outgoing
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from tests.made_integration import made_integration

NOW_MS = 1_790_000_000_000


class FakeConfig(ConnectionConfig):
    """A connection of one owner."""

    @property
    def one_owner(self) -> bool:
        return True


class FakeSource:
    """Takes what the test puts into `coming`; `running` counts those that run at this moment."""

    name: ClassVar[str] = "fake"
    Config = FakeConfig
    running = 0
    coming: ClassVar[asyncio.Queue[tuple[list[Request], Any] | Exception]]

    def __init__(self, config: Any, context: Context) -> None:
        assert isinstance(config, FakeConfig)
        assert context.now_ms() == NOW_MS

    async def run(self, inlet: Inlet, health: Health) -> None:
        FakeSource.running += 1
        try:
            health.connected()
            while True:
                match await FakeSource.coming.get():
                    case Exception() as error:
                        raise error
                    case requests, cursor:
                        await inlet.take(requests, cursor)
        finally:
            FakeSource.running -= 1


@dataclass
class FakeLease:
    """A lease that the test takes away; what is appended under it is kept in the log."""

    log: list[Outgoing]
    kept: dict[str, Any]

    def __post_init__(self) -> None:
        self.valid = True
        self.gone = asyncio.Event()

    async def lost(self) -> None:
        await self.gone.wait()

    async def cursor(self) -> Any:
        return self.kept.get("cursor")

    async def append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        if self.kept.get("stolen"):
            raise LeaseLostError("another worker has it")
        self.log += records
        self.kept["cursor"] = cursor


class FakeLeases:
    """Gives one lease at a time, when `free` is set; `inside` tells whether somebody has it."""

    def __init__(self, log: list[Outgoing]) -> None:
        self.log = log
        self.kept: dict[str, Any] = {}
        self.free = asyncio.Event()
        self.inside: FakeLease | None = None
        self.trouble = ""
        self.names: list[str] = []

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[FakeLease]:
        self.names.append(name)
        await self.free.wait()
        self.inside = FakeLease(self.log, self.kept)
        try:
            yield self.inside
        finally:
            assert FakeSource.running == 0, "the lease was given back while its source ran"
            self.inside = None

    def owner(self, name: str) -> str:
        return f"other-of-{name}"

    async def close(self) -> None:
        pass


class ListLog:
    """Keeps records in a list."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    async def append(self, records: Sequence[Outgoing]) -> None:
        self.records += records


class Worker:
    """A door and its sources, whose one integration is the fake's."""

    def __init__(self) -> None:
        self.log: Any = ListLog()
        self.leases = FakeLeases(self.log.records)
        self.bugs: list[BaseException] = []
        chosen = dialects()["http"]
        one = made_integration(
            name="barn",
            dialect=chosen,
            options=chosen.options(device_field="d"),
            device_template=chosen.device_template,
            transport="fake",
            connection=FakeConfig(),
        )
        settings = IngestSettings(source_pause_s=0.001, source_pause_s_max=0.002)
        door = Door(self.log, self.rulebooks, Waiting("i", 1), Reports(self.log, clock, 1),
                    settings, new_id=lambda: "id", now_ms=clock)  # fmt: skip
        self.book = {one.name: one}
        self.sources = Sources(door, self.log, self.rulebooks, settings, now_ms=clock,
                               on_bug=self.bugs.append, outside=Outside(self.leases))  # fmt: skip

    def rulebooks(self) -> dict[str, Rulebook]:
        return {"acme": Rulebook("acme", Path(), "v1", self.book, {}, {}, {})}

    def status(self) -> Any:
        (only,) = self.sources.status()
        return only


def clock() -> int:
    return NOW_MS


@pytest.fixture
async def worker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    FakeSource.running = 0
    FakeSource.coming = asyncio.Queue()
    monkeypatch.setattr(sources_module, "sources", lambda: {"fake": FakeSource})
    assert port.sources() is not None
    made = Worker()
    await made.sources.refresh()
    yield made
    await made.sources.stop()
    assert not made.bugs


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - it is about other tasks
            await asyncio.sleep(0)


def message(number: int) -> Request:
    return Request(body=b'{"d":"dev1","n":%d}' % number)


async def test_a_source_waits_for_its_lease(worker: Worker) -> None:
    """Without the lease nothing connects, and the status says which worker has it."""
    await until(lambda: worker.leases.names)

    assert FakeSource.running == 0
    status = worker.status()
    assert (status.state, status.note) == ("standby", "worker other-of-acme/barn has it")
    assert worker.leases.names == ["acme/barn"]
    worker.leases.free.set()
    await until(lambda: worker.status().state == "connected")
    assert worker.status().note == ""


async def test_a_lost_lease_ends_the_source_at_once(worker: Worker) -> None:
    """Its source is cancelled before the lease counts as given back; later it may come again."""
    worker.leases.free.set()
    await until(lambda: FakeSource.running)
    worker.leases.free.clear()
    assert worker.leases.inside is not None
    worker.leases.inside.gone.set()
    await until(lambda: worker.leases.inside is None)

    assert FakeSource.running == 0
    assert worker.status().state == "standby"
    metrics = Registry()
    worker.sources.flush(metrics)
    labels = (("integration", "barn"), ("tenant", "acme"))
    assert metrics.values("funicular_integration_standby") == {labels: 1}
    assert metrics.values("funicular_integration_connected") == {labels: 0}
    worker.leases.free.set()
    await until(lambda: worker.status().state == "connected")


async def test_who_has_no_lease_any_more_stores_nothing(worker: Worker) -> None:
    """Where the loss shows only when messages are taken, none is stored, and the next try waits
    for the lease.
    """
    worker.leases.free.set()
    await until(lambda: worker.leases.inside)
    assert worker.leases.inside is not None
    worker.leases.inside.valid = False
    worker.leases.free.clear()
    FakeSource.coming.put_nowait(([message(1)], None))
    await until(lambda: worker.leases.inside is None)

    assert worker.log.records == []
    worker.leases.kept["stolen"] = True
    worker.leases.free.set()
    await until(lambda: worker.leases.inside)
    worker.leases.free.clear()
    FakeSource.coming.put_nowait(([message(1)], 5))
    await until(lambda: worker.leases.inside is None)
    assert worker.log.records == []
    assert worker.status().errors == 0


async def test_a_cursor_goes_with_its_records(worker: Worker) -> None:
    """Records and cursor are handed over in one step, also a cursor alone."""
    worker.leases.free.set()
    FakeSource.coming.put_nowait(([message(1), message(2)], {"at": 2}))
    await until(lambda: worker.leases.kept.get("cursor") == {"at": 2})
    assert [record.value for record in worker.log.records] == [message(1).body, message(2).body]
    FakeSource.coming.put_nowait(([], {"at": 3}))
    await until(lambda: worker.leases.kept.get("cursor") == {"at": 3})

    assert worker.status().messages == 2


async def test_a_break_keeps_the_lease(worker: Worker) -> None:
    """A connection that breaks is made again by the same worker."""
    worker.leases.free.set()
    FakeSource.coming.put_nowait(port.SourceError("gone"))
    await until(lambda: worker.status().connects == 2)

    assert worker.leases.names == ["acme/barn"]
    assert worker.status().last_error == "gone"


async def test_unknown_leases_are_a_fault(worker: Worker) -> None:
    """Where nobody can tell whose the leases are, the integration is lost, with the reason."""
    worker.leases.trouble = "no topic"

    assert (worker.status().state, worker.status().last_error) == ("lost", "no topic")
