"""Fakes of what the sinks stand on: a log, a clock that jumps, a web server with moods."""

from __future__ import annotations

import asyncio
import heapq
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, State
from pipeline.model.event import DownlinkReport
from pipeline.model.record import Outgoing, Record, headers_of
from pipeline.model.uplink import Link
from pipeline.ports import Holder
from pipeline.rulebook.book import Integration, Rulebook, SinkEntry
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.destination import Surroundings
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict
from tests.made_integration import made_integration

START_MS = 1_760_000_000_000
TENANT = "acme"
SETTINGS = SinkSettings(commit_interval_s=0, allowed_networks=LOOPBACK)
_encode = msgspec.json.Encoder().encode


def run(main: Awaitable[Any]) -> Any:
    """Run a test's coroutine; one that hangs fails."""

    async def limited() -> Any:
        return await asyncio.wait_for(main, 15)

    return asyncio.run(limited())


class World:
    """Lets a test wait for a change by any fake, without sleeping."""

    def __init__(self) -> None:
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        self._stirred.set()

    async def until(self, predicate: Callable[[], Any]) -> None:
        while not predicate():
            self._stirred.clear()
            await self._stirred.wait()


class FakeClock:
    """Monotonic and wall time that move only when a test says so."""

    def __init__(self, world: World) -> None:
        self.now_s = 0.0
        self._world = world
        self._timers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return START_MS + round(self.now_s * 1_000)

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        if timeout_s is None:
            await event.wait()
            return
        if timeout_s <= 0:
            await asyncio.sleep(0)
            return
        timer = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._timers, (self.now_s + timeout_s, self._count, timer))
        self._world.stir()
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({waiter, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            timer.cancel()

    def due(self) -> list[float]:
        """Return how far away each wait's end is."""
        return sorted(due - self.now_s for due, _, timer in self._timers if not timer.done())

    async def jump(self) -> float:
        """Wait until somebody waits for time, go to the first such moment; return the distance."""
        await self._world.until(self.due)
        distance = self.due()[0]
        self.advance(distance)
        return distance

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        while self._timers and self._timers[0][0] <= self.now_s + 1e-9:
            _, _, timer = heapq.heappop(self._timers)
            if not timer.done():
                timer.set_result(None)


class FakeReader:
    """Reads a topic of a FakeLog for a group."""

    def __init__(self, log: FakeLog, topic: str, group: str) -> None:
        self._log = log
        self._topic = topic
        self.group = group
        self.closed = False
        self.holder: Holder | None = None

    async def opened(self) -> None:
        pass

    def watch(self, holder: Holder) -> None:
        self.holder = holder

    async def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        offset = self._log.positions.get(self.group, 0)
        while True:
            records = self._log.topics[self._topic]
            if offset < len(records):
                batch = records[offset : offset + records_max]
                offset += len(batch)
                yield batch
            else:
                await self._log.grown(self._topic)

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        self._log.check()
        assert not isinstance(offset, int), "a destination commits by partition"
        self._log.take(records)
        for partition, last in offset.items():
            # The log's records have one row of offsets; a partition has some of them.
            name = f"{self.group}.{partition}" if partition else self.group
            assert last + 1 >= self._log.positions.get(name, 0), "a position went back"
            self._log.positions[name] = last + 1
        self._log.commits += 1
        self._log.world.stir()

    async def close(self) -> None:
        self.closed = True


class FakeLog:
    """A log in memory. `refusals` are raised, one an attempt, before anything is written."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics: dict[str, list[Record]] = defaultdict(list)
        self.positions: dict[str, int] = {}
        self.appended: list[Outgoing] = []
        self.refusals: deque[Exception] = deque()
        self.commits = 0
        self.readers: list[FakeReader] = []
        self._news: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def check(self) -> None:
        if self.refusals:
            error = self.refusals.popleft()
            self.world.stir()
            raise error

    def take(self, records: Sequence[Outgoing]) -> None:
        self.appended += records
        self.world.stir()

    async def append(self, records: Sequence[Outgoing]) -> None:
        self.check()
        self.take(records)

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> FakeReader:
        self.readers.append(FakeReader(self, topic, group))
        return self.readers[-1]

    def partition_of(self, topic: str, key: str) -> int:
        return 0

    async def grown(self, topic: str) -> None:
        self._news[topic].clear()
        await self._news[topic].wait()

    def put(
        self,
        topic: str,
        value: bytes | None,
        key: str = "",
        partition: int = 0,
        **headers: str,
    ) -> None:
        records = self.topics[topic]
        records.append(Record(topic, partition, len(records), START_MS, key, value, headers))
        self._news[topic].set()

    def deliver(self, delivery: Delivery, partition: int = 0) -> None:
        """Append a delivery as route and downlink do."""
        topic = f"delivery.{delivery.tenant}.{delivery.destination}"
        headers = headers_of(
            event_id=delivery.id,
            trace=f"trace-{delivery.id}",
            cause="cause",
            tenant=delivery.tenant,
            rules="r1",
        )
        self.put(
            topic, _encode(delivery), f"{delivery.tenant}/{delivery.device}", partition, **headers
        )

    def position(self, destination: str, tenant: str = TENANT) -> int:
        return self.positions.get(f"sink-{tenant}-{destination}", 0)

    def dead_letters(self) -> list[DeadLetter]:
        return [
            msgspec.json.decode(record.value or b"", type=DeadLetter)
            for record in self.appended
            if record.topic == "dead.letter"
        ]

    def reports(self) -> list[DownlinkReport]:
        return [
            msgspec.json.decode(record.value or b"", type=DownlinkReport)
            for record in self.appended
            if record.topic == "device.events"
        ]


def delivery(number: int, device: str = "dev1", **more: Any) -> Delivery:
    """Return delivery `d<number>` of a sink named `app`."""
    fields: dict[str, Any] = {
        "id": f"d{number}",
        "tenant": TENANT,
        "device": device,
        "destination": "app",
        "time_ms": START_MS + number,
        "body": {"n": number, "device": device},
    }
    return Delivery(**fields | more)


def downlink_delivery(number: int, device: str = "dev1", **more: Any) -> Delivery:
    """Return a delivery of downlink `l<number>` to the network server of integration `ns`."""
    downlink = Downlink(
        id=f"l{number}",
        tenant=TENANT,
        device=device,
        integration="ns",
        state=State.SENDING,
        requested_ms=START_MS,
        changed_ms=START_MS,
        payload=bytes([number]),
        f_port=1,
        **more,
    )
    return delivery(
        number,
        device,
        id=f"l{number}.d",
        destination="downlink-ns",
        body=None,
        downlink=downlink,
        link=Link(device_id=device),
    )


@dataclass
class FakeTransport:
    """Gives the results that a test wants; `blocked` devices wait until they are let go."""

    world: World
    deliveries_max: int = 1
    concurrency: int = 4
    retry: Any = None
    batches: list[list[str]] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    results: dict[str, deque[Result | Exception]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    open_errors: deque[Exception] = field(default_factory=deque)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    opens: int = 0
    closes: int = 0

    async def open(self) -> None:
        self.opens += 1
        self.world.stir()
        if "open" in self.gates:
            await self.gates["open"].wait()
        if self.open_errors:
            raise self.open_errors.popleft()

    async def close(self) -> None:
        self.closes += 1

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        self.batches.append([one.id for one in batch])
        self.world.stir()
        for one in batch:
            if one.device in self.gates:
                await self.gates[one.device].wait()
        results = []
        for one in batch:
            planned = self.results[one.id]
            result = planned.popleft() if planned else DELIVERED
            if isinstance(result, Exception):
                raise result
            if result.verdict is Verdict.DELIVERED:
                self.delivered.append(one.id)
            results.append(result)
        self.world.stir()
        return results


POSTPONED = Result(Verdict.POSTPONED, "status", "the destination answered 503", uncertain=True)
REFUSED = Result(Verdict.REFUSED, "rejected", "the destination answered 422", {"status": 422})


def surroundings(log: FakeLog, clock: FakeClock, settings: SinkSettings = SETTINGS) -> Surroundings:
    return Surroundings(log, settings, Registry(), clock.now_ms, lambda: 0.0, clock)


def context(folder: Path | None = None, now_ms: Callable[[], int] = lambda: START_MS) -> Context:
    settings = replace(SETTINGS, folder=folder or Path())
    return Context(TENANT, "app", settings, now_ms)


@dataclass(frozen=True)
class Heard:
    """A request that the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Mood = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answers(status: int, body: bytes = b"", **headers: str) -> Mood:
    """Return the mood of answering so. Underscores in header names become hyphens."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def mood(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=names)

    return mood


async def resets(request: web.Request) -> web.StreamResponse:
    """Break the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def says_nothing(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


def drips(status: int) -> Mood:
    """Return the mood of a status at once and then a body that never ends."""

    async def mood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    return mood


def floods(status: int) -> Mood:
    """Return the mood of a body without end, as fast as it is taken."""

    async def mood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while True:
            await response.write(b"y" * 65_536)

    return mood


class Server:
    """A real web server on a free port; each request takes the next mood of its path, then 200."""

    def __init__(self, world: World) -> None:
        self.heard: list[Heard] = []
        self.moods: dict[str, deque[Mood]] = defaultdict(deque)
        self.always: dict[str, Mood] = {}
        self.url = ""
        self._world = world

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(request.method, request.raw_path, headers, body))
        self._world.stir()
        planned = self.moods[request.path]
        mood = planned.popleft() if planned else self.always.get(request.path, answers(200))
        return await mood(request)


@asynccontextmanager
async def serving(world: World, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a Server, over TLS where a context is given."""
    server = Server(world)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http{'s' if tls else ''}://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def integration(dialect: Any, *, synchronous: bool = False, options: Any = None) -> Integration:
    """Return integration `ns` of the test's tenant."""
    return made_integration(
        tenant=TENANT,
        name="ns",
        dialect=dialect,
        options=options,
        synchronous=synchronous,
        body_bytes_max=1_000,
    )


def rulebook(
    sinks: dict[str, tuple[str, Any]] | None = None,
    integrations: Sequence[Integration] = (),
    tenant: str = TENANT,
) -> Rulebook:
    """Return rules with these sinks: name → (transport, config)."""
    entries = {
        name: SinkEntry(tenant, name, transport, config)
        for name, (transport, config) in (sinks or {}).items()
    }
    by_name = {one.name: one for one in integrations}
    return Rulebook(tenant, Path(), "r1", by_name, {}, {}, entries)
