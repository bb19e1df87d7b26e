"""The source over CoAP (RFC 7252): a server that devices post to.

In: `POST coap://host/{path}/{device}/{token}`, or with `?device=…&token=…`; whole or in blocks (RFC
7959). Answered 2.04 once the message is durable, with the downlink in it where the integration is
synchronous. Out: `GET …/downlinks` with Observe (RFC 7641): each downlink at any time, as a
notification that the device confirms.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.rulebook.connections.coap_server import CoapServerConfig, psk_credentials
from pipeline.rulebook.connections.listener import Networks

from .raw_message import address_text

if TYPE_CHECKING:
    import aiocoap

LOGGER = "funicular.coap"


class CoapSource:
    """See `source.Source`."""

    name = "coap"
    Config = CoapServerConfig

    def __init__(self, config: CoapServerConfig, context: Context) -> None:
        self._config = config
        self._context = context

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`. It ends when it is cancelled."""
        from .coap_server.site import CoapSite  # noqa: PLC0415 - it needs the library of an extra

        site = CoapSite(self._config, self._context, inlet, Networks(self._config.peers))
        server = await self._listen(site)
        try:
            health.connected()
            await site.serve(server)
        finally:
            site.close()
            await server.shutdown()

    async def _listen(self, site: Any) -> aiocoap.Context:
        import aiocoap  # noqa: PLC0415 - an extra
        from aiocoap.credentials import CredentialsMap  # noqa: PLC0415

        # What anybody's datagrams are worth: the site counts what it refuses.
        logging.getLogger(LOGGER).setLevel(logging.CRITICAL)
        config = self._config
        credentials = CredentialsMap()
        if config.dtls is not None:
            keys = psk_credentials(config.dtls)
            credentials.load_from_dict({f":{name}": key for name, key in keys.items()})
        try:
            await _check_address(config.host, config.port)
            return await aiocoap.Context.create_server_context(
                site,
                # Of DTLS the library takes the port beside that of plain CoAP, and adds one to it.
                bind=(config.host, config.port - (config.dtls is not None)),
                loggername=LOGGER,
                server_credentials=credentials,
                transports=["tinydtls_server" if config.dtls is not None else "udp6"],
            )
        except (OSError, aiocoap.error.Error) as error:
            where = address_text((config.host, config.port))
            said = getattr(error, "strerror", None) or error
            raise SourceError(f"nobody can listen at {where}: {said}") from None


async def _check_address(host: str, port: int) -> None:
    """Raise OSError where nobody can listen, or somebody does: the library shares a port that is
    taken, and leaves a socket behind where it cannot have one.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(address)


SOURCE = CoapSource
