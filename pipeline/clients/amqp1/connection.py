"""A connection to a server of AMQP 1.0, as its config says: for what comes in and what goes out.

In: `rulebook.amqp1_server.Amqp1SourceConfig`. Out: receivers, whose messages come in one line, and
senders. The protocol is Qpid Proton's engine, which is an extra, hence imported when it is needed;
its bytes are carried by asyncio, its TLS is ours.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from pipeline.errors import RetryableError
from pipeline.rulebook.connections.amqp1_server import Amqp1Server, Amqp1SourceConfig
from pipeline.rulebook.connections.tls import tls_context

from .arrivals import Arrival, Line, Outcome, Receiver, ServerError

_SESSION_BYTES = 8 * 1024 * 1024  # what the other side may send before we have read it
_SELECTOR = "apache.org:selector-filter:string"
_ERROR_TEXT_MAX = 500


class Connection(asyncio.Protocol):
    """One connection with one session. Made by `connected`; for one event loop."""

    def __init__(self, config: Amqp1SourceConfig, container: str, server: Amqp1Server) -> None:
        import proton  # noqa: PLC0415 - an extra

        self._proton: Any = proton
        self._loop = asyncio.get_running_loop()
        self._bytes_max = config.message_bytes_max
        self._timeout_s = config.connect_timeout
        self._names = count()
        self.line = Line()
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._receivers: dict[Any, Receiver] = {}
        self._senders: dict[str, Any] = {}
        self._room: dict[Any, asyncio.Event] = {}
        self._ended: asyncio.Future[ServerError] = self._loop.create_future()
        self._wire: asyncio.Transport | None = None
        self._open = False
        self._timer: asyncio.TimerHandle | None = None
        self._collector = proton.Collector()
        self._engine = proton.Transport()
        self._connection = proton.Connection()
        self._connection.collect(self._collector)
        self._connection.container = container
        self._connection.hostname = server.host
        mechanism = "ANONYMOUS"
        user, password = server.login(time.time())
        if user:
            mechanism = "PLAIN"
            self._connection.user = user
            self._connection.password = password
        elif config.tls is not None and config.tls.certificate_file:
            mechanism = "EXTERNAL"
        sasl = self._engine.sasl()
        sasl.allow_insecure_mechs = True  # The engine does not see that TLS is around it.
        sasl.allowed_mechs(mechanism)
        self._engine.idle_timeout = config.heartbeat
        self._engine.bind(self._connection)
        self._session = self._connection.session()
        self._session.incoming_capacity = _SESSION_BYTES

        self._handlers: dict[str, Callable[[Any], None]] = {
            "PN_CONNECTION_REMOTE_OPEN": self._opened,
            "PN_CONNECTION_REMOTE_CLOSE": self._closed,
            "PN_SESSION_REMOTE_CLOSE": self._closed,
            "PN_LINK_REMOTE_OPEN": self._link_opened,
            "PN_LINK_REMOTE_CLOSE": self._link_closed,
            "PN_LINK_REMOTE_DETACH": self._link_closed,
            "PN_LINK_FLOW": self._flowed,
            "PN_DELIVERY": self._delivered,
            "PN_TRANSPORT_ERROR": self._failed,
        }

    async def open(self) -> None:
        """Say who we are. ServerError: refused."""
        self._connection.open()
        self._session.open()
        await self._answer(self._connection)

    async def receiver(
        self,
        key: str,
        address: str,
        *,
        credit: int,
        selector: str = "",
        target: str = "",
        line: Line | None = None,
    ) -> None:
        """Read an address; what comes is given by `arrived`, of another `line` by that.
        `target` is what the link is called on our side. ServerError: refused.
        """
        proton = self._proton
        link = self._session.receiver(self.name())
        link.source.address = address
        link.target.address = target or address
        if selector:
            name = proton.symbol(_SELECTOR)
            link.source.filter.put_dict({name: proton.Described(name, selector)})
        self._receivers[link] = Receiver(key, address, link, self.line if line is None else line)
        link.open()
        link.flow(credit)
        await self._answer(link)

    async def arrived(self, line: Line | None = None) -> Arrival:
        """Return the next message. ServerError: the connection or a link ended; what came before
        cannot be settled any more, and the other side sends it again.
        """
        self._still()
        line = self.line if line is None else line
        arrival: Arrival = await (line.get() if line else self._or_end(line.get()))
        return arrival

    def name(self) -> str:
        """Return a name that nothing else of this connection has."""
        return f"{self._connection.container}-{next(self._names)}"

    def accept(self, arrivals: list[Arrival]) -> None:
        """Settle messages as accepted, and allow as many more. ServerError: it is too late."""
        self._still()
        accepted = self._proton.Delivery.ACCEPTED
        more: dict[Any, int] = {}
        for arrival in arrivals:
            arrival.delivery.update(accepted)
            arrival.delivery.settle()
            link = arrival.receiver.link
            more[link] = more.get(link, 0) + 1
        for link, amount in more.items():
            link.flow(amount)
        self._pump()

    async def send(self, address: str, data: bytes) -> Outcome:
        """Send an encoded message, and return what became of it. ServerError: nobody knows."""
        link = self._senders.get(address)
        if link is None:
            link = await self._sender(address)
        async with asyncio.timeout(self._timeout_s):
            while link.credit <= 0:
                self._still()
                room = self._room.setdefault(link, asyncio.Event())
                room.clear()
                await self._or_end(room.wait())
        delivery = link.delivery(str(next(self._names)))
        link.send(data)
        link.advance()
        outcome: Outcome = await self._answer(delivery)
        return outcome

    async def _sender(self, address: str) -> Any:
        if len(self._senders) >= _SENDERS_MAX:
            oldest = next(iter(self._senders))
            self._senders.pop(oldest).close()
        link = self._session.sender(self.name())
        link.source.address = address
        link.target.address = address
        link.open()
        await self._answer(link)
        self._senders[address] = link
        return link

    @property
    def ended(self) -> bool:
        """Whether nothing more can be done with it."""
        return self._ended.done()

    def _still(self) -> None:
        if self._ended.done():
            raise self._ended.result()

    async def _answer(self, about: Any) -> Any:
        """Send what there is, and wait for the other side's word about it."""
        self._still()
        answer = self._waiting[about] = self._loop.create_future()
        self._pump()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._or_end(answer)
        except TimeoutError:
            raise ServerError("the server did not answer in time", code="timeout") from None
        finally:
            self._waiting.pop(about, None)

    async def _or_end(self, awaited: Any) -> Any:
        waiting = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait({waiting, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise self._ended.result()
        finally:
            waiting.cancel()

    def _told(self, about: Any, answer: Any) -> None:
        waiting = self._waiting.get(about)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, ServerError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    def _end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(ServerError(why))
            # Nobody may look for long; the other side is not to wait.
            self._loop.call_soon(self._hang_up)

    def _hang_up(self) -> None:
        if self._wire is not None and not self._wire.is_closing():
            self._connection.close()
            self._pump()
            self._wire.close()
        self._quiet()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._pump()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        view = memoryview(data)
        while view and not self._ended.done():
            room = self._engine.capacity()
            if room <= 0:
                self._end("the server sent what is no AMQP 1.0")
                break
            try:
                self._engine.push(bytes(view[:room]))
            except self._proton.TransportException as error:
                self._end(f"the connection to the server failed: {_plain(str(error))}")
                break
            view = view[room:]
            self._events()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        why = f" ({_plain(str(exc))})" if exc is not None and str(exc) else ""
        early = "" if self._open else " before it was open: may this user connect?"
        self._end(f"the server closed the connection{early}{why}")

    def _pump(self) -> None:
        """Let the engine's events and bytes go where they belong, until there are no more."""
        self._events()
        wire = self._wire
        if wire is None or wire.is_closing():
            return
        while (pending := self._engine.pending()) > 0:
            data = self._engine.peek(pending) or b""
            wire.write(data)
            self._engine.pop(len(data))
            self._events()
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        due = self._engine.tick(now)
        if due:
            self._timer = self._loop.call_later(max(0.05, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    def _events(self) -> None:
        while (event := self._collector.peek()) is not None:
            handle = self._handlers.get(event.type.name)
            if handle is not None:
                handle(event)
            self._collector.pop()

    def _opened(self, event: Any) -> None:
        self._open = True
        self._told(event.connection, None)

    def _link_opened(self, event: Any) -> None:
        link = event.link
        terminus = link.remote_source if link.is_receiver else link.remote_target
        # A refusal is an empty answer, which the reason follows.
        if terminus.address is not None or terminus.type != self._proton.Terminus.UNSPECIFIED:
            self._told(link, None)

    def _link_closed(self, event: Any) -> None:
        link = event.link
        receiver = self._receivers.get(link)
        address = receiver.address if receiver else link.target.address
        error = ServerError(f"the server refuses `{address}`: {_condition(link.remote_condition)}")
        if link in self._waiting:
            self._told(link, error)
        elif receiver is not None:
            self._end(f"the server ended `{address}`: {_condition(link.remote_condition)}")
        else:
            self._senders = {name: each for name, each in self._senders.items() if each != link}
        for delivery in [each for each in self._waiting if getattr(each, "link", None) == link]:
            self._told(delivery, error)

    def _closed(self, event: Any) -> None:
        self._end(f"the server ended the connection: {_condition(self._remote_condition(event))}")

    @staticmethod
    def _remote_condition(event: Any) -> Any:
        return (event.session or event.connection).remote_condition

    def _failed(self, event: Any) -> None:
        self._end(f"the connection to the server failed: {_condition(event.transport.condition)}")

    def _flowed(self, event: Any) -> None:
        if (room := self._room.get(event.link)) is not None:
            room.set()

    def _delivered(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if not link.is_receiver:
            if delivery.updated and delivery.remote_state:
                self._told(delivery, self._outcome(delivery))
                delivery.settle()
            return
        receiver = self._receivers.get(link)
        if receiver is None or not delivery.readable:
            return
        self._collect(receiver, delivery)
        if delivery.aborted:
            receiver.buffer.clear()
            link.advance()
            delivery.settle()
            link.flow(1)
        elif not delivery.partial:
            data, receiver.buffer = bytes(receiver.buffer), bytearray()
            link.advance()
            whole = len(data) <= self._bytes_max
            receiver.line.put(Arrival(receiver, data[: self._bytes_max], whole, delivery))

    def _collect(self, receiver: Receiver, delivery: Any) -> None:
        while delivery.pending > 0:
            piece = receiver.link.recv(delivery.pending)
            if not piece:
                break
            room = self._bytes_max + 1 - len(receiver.buffer)
            receiver.buffer += piece[: max(0, room)]

    def _outcome(self, delivery: Any) -> Outcome:
        kinds = self._proton.Delivery
        state = delivery.remote_state
        if state == kinds.ACCEPTED:
            return Outcome(accepted=True)
        if state == kinds.REJECTED:
            return Outcome(accepted=False, said=_condition(delivery.remote.condition))
        return Outcome(accepted=False, again=True, said="the server does not take it now")

    async def close(self) -> None:
        """Say that we go, and let go of the connection; again is fine."""
        wire = self._wire
        if wire is None:
            return
        if not self._ended.done() and not wire.is_closing():
            self._connection.close()
            self._pump()
            # It may not answer, and we go all the same.
            await asyncio.wait({self._ended}, timeout=_GOODBYE_S)
        self._end("we closed the connection")
        wire.abort()
        self._quiet()
        self._wire = None


_GOODBYE_S = 2.0
_SENDERS_MAX = 64  # addresses that are sent to at a time


@asynccontextmanager
async def connected(
    config: Amqp1SourceConfig, container: str, server: Amqp1Server | None = None
) -> AsyncIterator[Connection]:
    """Connect, and close at the end. `container` is who we are; `server` another one than the
    config's. ServerError: it cannot be made, or breaks meanwhile.
    """
    server = server or config
    connection = Connection(config, container, server)
    try:
        context = tls_context(config.tls) if server.secure else None
    except RetryableError as error:
        raise ServerError(error.message) from None
    loop = asyncio.get_running_loop()
    try:
        try:
            async with asyncio.timeout(config.connect_timeout):
                await loop.create_connection(
                    lambda: connection,
                    server.host,
                    server.port,
                    ssl=context,
                    server_hostname=server.host if context else None,
                )
                await connection.open()
        except TimeoutError:
            raise ServerError("the server did not answer in time", code="timeout") from None
        except (OSError, ssl.SSLError) as error:
            said = _plain(str(error)) or type(error).__name__
            raise ServerError(f"the server cannot be reached: {said}") from None
        yield connection
    finally:
        await connection.close()


def _condition(condition: Any) -> str:
    """Return the other side's reason, and where it sends us instead."""
    if condition is None:
        return "it gave no reason"
    said = f"{condition.description or ''} ({condition.name})".strip()
    info = condition.info if isinstance(condition.info, dict) else {}
    if "redirect" in str(condition.name):
        named = {str(name): str(value) for name, value in info.items()}
        where = named.get("hostname") or named.get("network-host", "")
        said = f"{said}: it is at {where} {named.get('address', '')}".strip()
    return said[:_ERROR_TEXT_MAX]


def _plain(text: str) -> str:
    return text[:_ERROR_TEXT_MAX]
