"""A sample sent to an integration's own TCP server, as a device would."""

from __future__ import annotations

import asyncio
import ssl

from pipeline.errors import MessageError
from pipeline.model.http import Request
from pipeline.rehearse.senders.raw import address_of, body_of
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.device_naming import HandshakeNaming
from pipeline.rulebook.connections.tcp_server import TcpServerConfig

WAIT_S = 5.0


async def send(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. Returns what the server sent back until it had closed the connection,
    which it does when all is stored.
    """
    config: TcpServerConfig = integration.connection
    framing, naming = config.framing, config.device
    try:
        frames = [framing.frame(body_of(config, device_id, request))]
        if isinstance(naming, HandshakeNaming):
            hello = naming.write(device_id, config.of(device_id))
            frames.insert(0, framing.frame(hello))
    except MessageError as error:
        raise NotSentError(error.message) from None
    wanted = (config.acknowledge or b"") * len(frames)
    try:
        async with asyncio.timeout(WAIT_S):
            return await _exchange(config, b"".join(frames), wanted)
    except TimeoutError:
        raise NotSentError(f"nothing was acknowledged within {WAIT_S:g} s") from None
    except asyncio.IncompleteReadError:
        raise NotSentError("the server closed the connection: it did not take it") from None
    except OSError as error:
        raise NotSentError(f"the server cannot be reached: {error.strerror or error}") from None


async def _exchange(config: TcpServerConfig, said: bytes, wanted: bytes) -> bytes:
    tls = _tls(config)
    reader, writer = await asyncio.open_connection(address_of(config), config.port, ssl=tls)
    try:
        writer.write(said)
        await writer.drain()
        heard = await reader.readexactly(len(wanted))
        if writer.can_write_eof():
            writer.write_eof()
            heard += await reader.read()
        return heard
    finally:
        writer.transport.abort()


def _tls(config: TcpServerConfig) -> ssl.SSLContext | None:
    """Return a context that trusts the server's own certificate, and no other."""
    if config.tls is None:
        return None
    if config.tls.ca_file:
        raise NotSentError("devices must show a certificate there, and this command has none")
    context = ssl.create_default_context(cafile=config.tls.certificate_file)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False  # It is known by its certificate, whatever name that has.
    return context


SENDER = send
