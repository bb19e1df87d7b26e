"""A sample sent to an integration's own UDP server, as a device would."""

from __future__ import annotations

import asyncio

from pipeline.errors import MessageError
from pipeline.model.http import Request
from pipeline.rehearse.senders.raw import address_of, body_of
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.udp_server import UdpServerConfig

ACKNOWLEDGE_S = 5.0
REFUSAL_S = 0.2
"""How long a machine takes to say that nobody listens there; more nobody says without
`acknowledge`."""


class _Heard(asyncio.DatagramProtocol):
    """The first datagram that comes back, or why none does."""

    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - of asyncio
        """Keep the first one."""
        if not self.first.done():
            self.first.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there."""
        if not self.first.done():
            self.first.set_exception(exc)


async def send(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. With `acknowledge` it returns when that has come; else nobody knows."""
    config: UdpServerConfig = integration.connection
    try:
        datagram = body_of(config, device_id, request)
        if config.framing is not None:
            datagram = config.framing.frame(datagram)
    except MessageError as error:
        raise NotSentError(error.message) from None
    heard = _Heard()
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: heard, remote_addr=(address_of(config), config.port)
        )
    except OSError as error:
        raise NotSentError(f"the server cannot be reached: {error.strerror or error}") from None
    try:
        transport.sendto(datagram)
        async with asyncio.timeout(ACKNOWLEDGE_S if config.acknowledge else REFUSAL_S):
            return await heard.first
    except TimeoutError:
        if config.acknowledge:
            said = f"nothing was acknowledged within {ACKNOWLEDGE_S:g} s"
            raise NotSentError(said) from None
        return b""
    except OSError as error:
        raise NotSentError(f"nobody listens there: {error.strerror or error}") from None
    finally:
        transport.close()


SENDER = send
