"""The whole flow in one place, without a socket, a disk or a clock: a request at a door, or a
command at the API, goes through the real door, stages and reply reader before it is answered.

In: requests, commands, records, time that passes. Out: answers, the engine's topics and states,
and what network servers would have been handed. Chain tests and flow tests work with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from pipeline.convert.stage import Convert
from pipeline.downlink.stage import DownlinkStage
from pipeline.errors import MessageError, RetryableError
from pipeline.ingest.access import Access
from pipeline.ingest.api import Api
from pipeline.ingest.applications import Applications
from pipeline.ingest.commands import PREFIX
from pipeline.ingest.door import UNAUTHORIZED, Door
from pipeline.ingest.keys import KeyStore
from pipeline.ingest.network_queues import NetworkQueues
from pipeline.ingest.owner import Owners
from pipeline.ingest.replies import Replies
from pipeline.ingest.reports import Outcome, Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.ttn_v2_door import TtnV2Speech
from pipeline.ingest.tts_v3_door import TtsV3Speech
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import QueueDialect
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call, Request, Response
from pipeline.model.record import Outgoing, Record
from pipeline.model.uplink import Link
from pipeline.ports import Batch, DeviceState, Reader, ScriptPort, Stage
from pipeline.rehearse.proof import proof_of
from pipeline.rehearse.services import Services
from pipeline.route.chain import Watch
from pipeline.route.stage import Route
from pipeline.route.turn import LogLine
from pipeline.rulebook.book import Integration, Rulebook
from pipeline.sink.endings import Ended, How, downlink_ending
from pipeline.sink.transport import DELIVERED, Result, Verdict
from pipeline.stream import MemoryEngine
from pipeline.topics import REPLY, delivery_topic, downlink_destination

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z: when a rehearsal begins that says nothing else."""
STEPS_MAX = 10_000
"""Batches that one request may cause; rules that feed themselves end here."""
_LOOPBACK = "127.0.0.1"

Mood = Literal["takes", "refuses", "is_away"]
"""What network servers do with downlinks: take them, refuse them (4xx), give no answer."""

_decode_delivery = msgspec.json.Decoder(Delivery).decode


class Stages:
    """The stages of one rulebook. Rehearsals may share them, one after the other, so that chains
    are compiled once.
    """

    def __init__(
        self,
        book: Rulebook,
        scripts: ScriptPort,
        metrics: Registry | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`watch` is given every node of every chain, as `Route` does."""
        self.book = book
        self.metrics = metrics or Registry()
        books = {book.tenant: book}
        self.rulebooks = lambda: books
        self.route = _Route(book, self.metrics, watch, scripts)
        self.all: list[Stage] = [
            Convert(self.rulebooks, scripts, self.metrics),
            self.route,
            DownlinkStage(self.rulebooks, scripts, self.metrics),
        ]


class _Route:
    """The stage route; it keeps what `log` nodes say, and runs no chains while it is `quiet`."""

    name = Route.name
    topic = Route.topic
    state_topic = Route.state_topic

    def __init__(
        self, book: Rulebook, metrics: Registry, watch: Watch | None, scripts: ScriptPort
    ) -> None:
        self.quiet = False
        self.lines: list[LogLine] = []
        with_chains = {book.tenant: book}
        without_chains = {book.tenant: replace(book, chains={})}
        self._with_chains = Route(
            lambda: with_chains, metrics, log=self._say, watch=watch, scripts=scripts
        )
        self._without_chains = Route(lambda: without_chains, metrics)

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """See `ports.Stage`."""
        stage = self._without_chains if self.quiet else self._with_chains
        return stage.handle(batch, state, now_ms)

    def _say(self, lines: Sequence[LogLine]) -> None:
        self.lines.extend(lines)


class _Engine(MemoryEngine):
    """Keeps, besides each topic's order, the order of all that was written."""

    def __init__(self, stages: Sequence[Stage], now_ms: int, journal: list[Outgoing]) -> None:
        super().__init__(stages, now_ms=now_ms, steps_max=STEPS_MAX)
        self._journal = journal

    def append(self, records: Sequence[Outgoing]) -> None:
        """See `MemoryEngine`; it appends the stages' outputs by this too."""
        super().append(records)
        self._journal.extend(records)


class Handed(NamedTuple):
    """A downlink that was on its way to a network server, and the request that it would get.

    `call` None: the dialect could not make one, `fault` says why.
    """

    delivery: Delivery
    call: Call | None
    fault: MessageError | None = None


class Rehearsal:
    """One run of the flow from nothing, at `now_ms`. Use it inside a running event loop.

    `mood` is what network servers do with downlinks; `handed` are those that they were given. All
    else that happened is in the topics and states of `engine`. Methods raise RetryableError where
    the script engine does not start, RuntimeError where the stages do not come to an end.
    """

    def __init__(
        self,
        stages: Stages,
        *,
        now_ms: int = START_MS,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """`new_id` gives the ids of requests and commands; left out, they are counted."""
        self.book = stages.book
        self.mood: Mood = "takes"
        self.handed: list[Handed] = []
        self.asked: list[Call] = []
        """What network servers were asked for."""
        self.network_queue = Response(200, b"{}")
        """What they answer to it."""
        self.services = Services(stages.book.sinks)
        """Whom chains ask, and what is answered."""
        self.lines: list[LogLine] = []
        """What `log` nodes said."""
        self._stages = stages.all
        self._route = stages.route
        self._route.lines, self._route.quiet = self.lines, False
        self.journal: list[Outgoing] = []
        """All that was written to any topic, in order."""
        self.engine: MemoryEngine = _Engine(stages.all, now_ms, self.journal)
        self._trouble: RetryableError | None = None
        self._read: dict[str, int] = {}  # topic → the offset up to which it was read here
        settings = IngestSettings()
        log = _Log(self)
        self._waiting = Waiting("rehearsal", settings.waiting_max)
        self._reports = Reports(log, self.now_ms, settings.reports_max)
        self._replies = Replies(
            log,
            self._waiting,
            self._reports,
            batch_max=settings.reply_batch_max,
            commit_s=settings.reply_commit_s,
        )
        new_id = new_id or _counted()
        self._door = Door(
            log,
            stages.rulebooks,
            self._waiting,
            self._reports,
            settings,
            new_id=new_id,
            now_ms=self.now_ms,
        )
        owners = Owners(
            log,
            stages.rulebooks,
            self._waiting,
            settings,
            new_id=new_id,
            now_ms=self.now_ms,
        )
        access = Access(KeyStore(None, now_ms=self.now_ms), _LOOPBACK)
        queues = NetworkQueues(stages.rulebooks, self._outward)
        self._api = Api(owners, stages.rulebooks, access, queues)
        speeches = (TtnV2Speech(), TtsV3Speech())
        self._applications = Applications(speeches, owners, stages.rulebooks, access, queues)

    def now_ms(self) -> int:
        """Return the time of the rehearsal."""
        return self.engine.now_ms

    async def enter(
        self,
        integration: str,
        request: Request,
        *,
        outcome: Outcome = "answered",
        with_secret: bool = True,
    ) -> Response:
        """Bring a request to an integration's door and return its answer, once all stages are
        idle.

        `outcome` is what became of an answer that carried a downlink. `with_secret` adds what
        proves it; without, the request must bring that itself.
        """
        headers, query = dict(request.headers), dict(request.query)
        known = self.book.integrations.get(integration)
        if known is not None and with_secret:
            secret_headers, secret_query = proof_of(known.authentication)
            headers |= secret_headers
            query |= secret_query
        gate = self._door.enter(self.book.tenant, integration, headers, query)
        if gate is None:
            return UNAUTHORIZED
        made = gate.request(request.method, headers, query, request.body)
        answer = await self._door.take(gate, made, self.now_ms())
        self._raise_trouble()
        if answer.handed_over is not None:
            answer.handed_over(outcome)
        await self._reports.flush()
        return answer.response

    async def ask(
        self,
        method: str,
        device: str,
        resource: str = "",
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a command to the API and return its answer, once all stages are idle.

        `resource` is what comes after the device's address: `attributes/shared`, `downlinks`,
        `downlinks/<id>`, or nothing for the device itself.
        """
        tenant, name = quote(self.book.tenant, safe=""), quote(device, safe="")
        tail = f"/{resource}" if resource else ""
        path = f"{PREFIX}{tenant}/devices/{name}{tail}"
        admitted = self._api.admit(method, path, headers or {}, _LOOPBACK)
        if isinstance(admitted, Response):
            return admitted
        answer = await self._api.handle(admitted, query or {}, body)
        self._raise_trouble()
        await self._reports.flush()
        return answer

    async def apply(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send what an application sends to a network server (`/api/v3/as/…` and the like), and
        return its answer, once all stages are idle. ValueError: no system has such an address.
        """
        admitted = self._applications.admit(method, path, query or {}, headers or {}, _LOOPBACK)
        if admitted is None:
            raise ValueError(path)
        if isinstance(admitted, Response):
            return admitted
        answer = await self._applications.handle(admitted, body)
        self._raise_trouble()
        await self._reports.flush()
        return answer

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Append records to any topic, as another producer would, and let all stages work."""
        self.take(records)
        await self._reports.flush()

    async def wait(self, duration_ms: int) -> None:
        """Let time pass; each timer fires at its own time."""
        until_ms = self.now_ms() + duration_ms
        while (due_ms := self._earliest()) is not None and due_ms <= until_ms:
            self.engine.run_until_idle(due_ms)
            self._settle()
        self.engine.run_until_idle(until_ms)
        self._settle()
        await self._reports.flush()

    @contextmanager
    def without_chains(self) -> Iterator[None]:
        """Inside, what happens to devices is kept and enters no chain."""
        self._route.quiet = True
        try:
            yield
        finally:
            self._route.quiet = False

    def records(self, topic: str, after_offset: int = -1) -> list[Record]:
        """Return a topic's records past an offset."""
        return self.engine.records(topic, after_offset)

    def take(self, records: Sequence[Outgoing]) -> None:
        """Append, and work until nothing is left to do; whoever waits has its replies then."""
        self.engine.append(records)
        try:
            self._settle()
        except RetryableError as error:
            self._trouble = error
            raise

    async def _outward(self, call: Call) -> Response:
        """Answer for the network servers."""
        if self.mood == "is_away":
            raise RetryableError("no answer", code="connect")
        self.asked.append(call)
        return self.network_queue

    def _raise_trouble(self) -> None:
        """The door answers 503 where the log takes nothing; here that is no answer, but the
        script engine that does not start.
        """
        if self._trouble is not None:
            raise self._trouble

    def _settle(self) -> None:
        while True:
            self.engine.run_until_idle()
            self._replies.take(self._unread(REPLY))
            if not self._hand_over():
                break
        # Nothing is under way any more: a reply that is not there will not come.
        self._waiting.expire_all()

    def _earliest(self) -> int | None:
        """Return when the next timer of any stage, or a service, is due."""
        timers = (self.engine.timers(stage.name)[:1] for stage in self._stages)
        due = [first[0][0] for first in timers if first]
        due_ms = self.services.due_ms()
        return min(due if due_ms is None else [*due, due_ms], default=None)

    def _unread(self, topic: str) -> list[Record]:
        records = self.engine.records(topic, self._read.get(topic, -1))
        if records:
            self._read[topic] = records[-1].offset
        return records

    def _hand_over(self) -> bool:
        """Give downlinks to the network servers, and calls to the services; return whether there
        was news of one.
        """
        news = self._ask_services()
        if self.mood != "is_away":
            news += self._hand_downlinks()
        self.engine.append(news)
        return bool(news)

    def _ask_services(self) -> list[Outgoing]:
        for sink in self.book.sinks:
            for record in self._unread(delivery_topic(self.book.tenant, sink)):
                self.services.ask(sink, record, self.now_ms())
        return self.services.work(self.now_ms())

    def _hand_downlinks(self) -> list[Outgoing]:
        news: list[Outgoing] = []
        for integration in self.book.integrations.values():
            topic = delivery_topic(self.book.tenant, downlink_destination(integration.name))
            for record in self._unread(topic):
                delivery = _decode_delivery(record.value or b"")
                handed = _handed(integration, delivery)
                self.handed.append(handed)
                news += downlink_ending(record, delivery, self._ended(handed), self.now_ms())
        return news

    def _ended(self, handed: Handed) -> Ended:
        if handed.fault is not None:
            fault = handed.fault
            refused = Result(Verdict.REFUSED, fault.code, fault.message, fault.detail)
            return Ended(How.REFUSED, refused)
        if self.mood == "refuses":
            message = "the network server refused it, as the test says"
            return Ended(How.REFUSED, Result(Verdict.REFUSED, "rejected", message))
        return Ended(How.DELIVERED, DELIVERED)


def _counted() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"r{next(numbers)}"


def _handed(integration: Integration, delivery: Delivery) -> Handed:
    dialect: Any = integration.dialect
    link = delivery.link or Link()
    try:
        if delivery.downlink is not None:
            call = dialect.send(delivery.downlink, link, integration.options)
        elif delivery.clear and isinstance(dialect, QueueDialect):
            call = dialect.clear_queue(link, integration.options)
        else:
            raise MessageError("the delivery holds no downlink", code="no_downlink")
    except MessageError as fault:
        return Handed(delivery, None, fault)
    return Handed(delivery, call)


class _Log:
    """`ports.Log` for the door: what is appended has been worked on when `append` returns."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    async def append(self, records: Sequence[Outgoing]) -> None:
        self._rehearsal.take(records)

    def partition_of(self, topic: str, key: str) -> int:  # noqa: ARG002 - there is one
        return 0

    def read(
        self,
        topic: str,
        group: str,  # noqa: ARG002
        *,
        from_end: bool = False,  # noqa: ARG002
        partition: int | None = None,  # noqa: ARG002
    ) -> Reader:
        raise RuntimeError(f"{topic} is read by the rehearsal itself")
