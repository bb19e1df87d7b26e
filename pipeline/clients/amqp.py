"""A connection to a broker of AMQP 0-9-1, as its config says: for what comes in and what goes out.

In: `rulebook.amqp_broker.AmqpSourceConfig`. Out: a connection of aiormq, which is an extra, hence
imported when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.errors import RetryableError
from pipeline.rulebook.connections.amqp_broker import AmqpSourceConfig
from pipeline.rulebook.connections.tls import tls_context

if TYPE_CHECKING:
    from aiormq.abc import AbstractConnection

FAULT_HEADER = "amqp-fault"
"""The one header of a message whose own properties could not be read."""
_HEADER_FRAME, _METHOD_FRAME = 2, 1
_DELIVER = struct.pack(">HH", 60, 60)
_FRAME_HEAD = struct.Struct(">BHI")
_UNREADABLE = (ValueError, OverflowError, OSError, struct.error, LookupError, TypeError)


class BrokerError(RetryableError):
    """The broker cannot be reached, refused something, or broke off. The text holds no secret."""

    code = "broker"


class UnreadableError(BrokerError):
    """The broker sent a message whose properties the library cannot read; it ended the
    connection, and the broker will send the message again. `connected(…, mending=True)` reads it.
    """

    code = "unreadable"


@asynccontextmanager
async def connected(
    config: AmqpSourceConfig, name: str, *, mending: bool = False
) -> AsyncIterator[AbstractConnection]:
    """Connect, and close at the end. `name` is what the broker shows of us.

    `mending`: properties that cannot be read are replaced by FAULT_HEADER; costs a second look at
    each frame. BrokerError: it cannot be made, or what is done in the block broke.
    """
    connection = await _connect(config, name, mending=mending)
    try:
        yield connection
    except BaseException as error:
        found = broker_error(error)
        if found is None:
            raise
        raise found from None
    finally:
        await _leave(connection, config.connect_timeout)


async def _leave(connection: AbstractConnection, timeout_s: float) -> None:
    """Close. An error says that it is gone already, or does not answer, which is as good."""
    try:
        async with asyncio.timeout(timeout_s):
            await connection.close()
    except (*_UNREADABLE, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _cancelled_by_others():
            raise
    except Exception as error:
        if broker_error(error) is None:
            raise


def _cancelled_by_others() -> bool:
    """Return whether this task is asked to end; the library's own tasks may end cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _connect(config: AmqpSourceConfig, name: str, *, mending: bool) -> AbstractConnection:
    from aiormq.connection import Connection  # noqa: PLC0415 - an extra
    from aiormq.exceptions import InvalidFrameError  # noqa: PLC0415 - an extra

    noisy = logging.getLogger("aiormq")
    if noisy.level == logging.NOTSET:
        # It says each failed try; we say when that begins and ends.
        noisy.setLevel(logging.CRITICAL)
    try:
        context = tls_context(config.tls) if config.secure else None
    except RetryableError as error:
        raise BrokerError(error.message) from None
    factory = _mending_factory(secure=config.secure) if mending else None
    connection = Connection(_url(config, name), context=context, transport_factory=factory)
    try:
        async with asyncio.timeout(config.connect_timeout):
            await connection.connect()
    except InvalidFrameError as error:
        # The library keeps the broker's words to itself; after the login this is what is left.
        why = f"is the virtual host `{config.virtual_host}` there, and may this user use it?"
        if "Connection.Close" not in str(error):
            why = "it does not speak AMQP 0-9-1"
        raise BrokerError(f"the broker refuses the connection: {why}") from None
    except BaseException as error:
        found = broker_error(error)
        if found is None:
            raise
        raise found from None
    return connection


def _url(config: AmqpSourceConfig, name: str) -> Any:
    from yarl import URL  # noqa: PLC0415 - beside its one user

    query = {"heartbeat": str(round(config.heartbeat)), "name": name}
    user = config.user or None
    password = config.password.get_secret_value() if config.password else None
    if not user and config.tls is not None and config.tls.certificate_file:
        query["auth"] = "external"
    virtual_host = "" if config.virtual_host == "/" else quote(config.virtual_host, safe="")
    return URL.build(
        scheme="amqps" if config.secure else "amqp",
        user=user,
        password=password,
        host=config.host,
        port=config.port,
        path=f"/{virtual_host}",
        query=query,
    )


def broker_error(error: BaseException) -> BrokerError | None:
    """Return our own error for one of the world's, None for any other."""
    from aiormq.exceptions import (  # noqa: PLC0415 - an extra
        AMQPError,
        ChannelInvalidStateError,
        ConnectionClosed,
        InvalidFrameError,
    )

    if isinstance(error, BrokerError):
        return error
    if isinstance(error, TimeoutError):
        return BrokerError("the broker did not answer in time", code="timeout")
    if isinstance(error, InvalidFrameError):
        return UnreadableError("a message has properties that cannot be read")
    if isinstance(error, ConnectionClosed):
        return BrokerError(f"the broker closed the connection: {_plain(error)}")
    if isinstance(error, AMQPError | ChannelInvalidStateError | OSError | EOFError):
        return BrokerError(f"the connection to the broker failed: {_plain(error)}")
    return None


def closed_by(error: BaseException | None) -> BrokerError:
    """Return why a connection or channel ended by itself; what the library could not read ends
    its reader with an error of Python's.
    """
    if isinstance(error, _UNREADABLE) and not isinstance(error, OSError):
        return UnreadableError("a message has properties that cannot be read")
    found = broker_error(error) if error is not None else None
    return found or BrokerError("the broker closed the connection")


def _plain(error: BaseException) -> str:
    """Return its text; the library's own texts about a connection may show the address whole."""
    text = str(error) or type(error).__name__
    return type(error).__name__ if "://" in text or "@" in text else text


def _mending_factory(*, secure: bool) -> Any:
    from aiormq.connection import (  # noqa: PLC0415 - an extra
        TCPTransportFactory,
        TLSTransportFactory,
    )

    kind: Any = TLSTransportFactory if secure else TCPTransportFactory

    class Mending(kind):  # type: ignore[misc]
        async def create(self, *given: Any, **named: Any) -> Any:
            reader, writer = await super().create(*given, **named)
            return _MendingReader(reader), writer

    return Mending()


class _MendingReader:
    """Reads whole frames, and gives them on in the pieces that the library asks for."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._held = b""

    def at_eof(self) -> bool:
        return not self._held and self._reader.at_eof()

    async def read(self) -> bytes:
        held, self._held = self._held, b""
        return held + await self._reader.read()

    async def readexactly(self, count: int) -> bytes:
        if not self._held:
            head = await self._reader.readexactly(_FRAME_HEAD.size)
            if head.startswith(b"AMQP"):  # a broker of another version says so, and no frame
                self._held = head
            else:
                length = _FRAME_HEAD.unpack(head)[2]
                self._held = mended(head + await self._reader.readexactly(length + 1))
        given, self._held = self._held[:count], self._held[count:]
        return given


def mended(frame: bytes) -> bytes:
    """Return a frame that the library can read: as it is; a delivery with its routing key made
    UTF-8; a message's header without the properties that it could not read.
    """
    import pamqp.frame  # noqa: PLC0415 - an extra
    from pamqp.exceptions import PAMQPException  # noqa: PLC0415 - an extra

    try:
        pamqp.frame.unmarshal(frame)
    except (*_UNREADABLE, PAMQPException):
        kind, channel, _ = _FRAME_HEAD.unpack(frame[: _FRAME_HEAD.size])
        payload = frame[_FRAME_HEAD.size : -1]
        if kind == _HEADER_FRAME:
            payload = payload[:12] + _fault_properties()
        elif kind == _METHOD_FRAME and payload.startswith(_DELIVER):
            payload = _legible_delivery(payload)
        return _FRAME_HEAD.pack(kind, channel, len(payload)) + payload + frame[-1:]
    return frame


def _fault_properties() -> bytes:
    """Return the flags and the one property of a message whose own cannot be read."""
    name, value = FAULT_HEADER.encode(), b"its properties cannot be read"
    entry = bytes([len(name)]) + name + b"S" + struct.pack(">I", len(value)) + value
    return struct.pack(">H", 1 << 13) + struct.pack(">I", len(entry)) + entry


def _legible_delivery(payload: bytes) -> bytes:
    """Return a `basic.deliver` whose exchange and routing key are UTF-8."""
    tag_end = 5 + payload[4]
    fixed_end = tag_end + 9  # delivery tag, redelivered
    exchange_end = fixed_end + 1 + payload[fixed_end]
    names = (payload[fixed_end + 1 : exchange_end], payload[exchange_end + 1 :])
    return payload[:fixed_end] + b"".join(_legible(each) for each in names)


def _legible(name: bytes) -> bytes:
    text = name.decode("utf-8", "backslashreplace").encode()[:255]
    text = text.decode("utf-8", "ignore").encode()
    return bytes([len(text)]) + text
