"""The source over TCP: a server that devices and gateways connect to.

In: frames. A message is acknowledged, where the user says how, after the log has it, in the order
of arrival; while it is stored nothing more is read of its connection. Out: downlinks, by the
connection of the device's last message or its handshake, as long as it lasts.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.errors import RetryableError
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.rulebook.connections.listener import Networks
from pipeline.rulebook.connections.server_tls import server_tls_context
from pipeline.rulebook.connections.tcp_server import TcpServerConfig

from .peers import Peers
from .raw_message import address_text
from .tcp_connection import TcpConnection

TLS_HANDSHAKE_S = 10.0
BACKLOG = 1_024


class TcpSource:
    """See `source.Source`."""

    name = "tcp"
    Config = TcpServerConfig

    def __init__(self, config: TcpServerConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._peers = Peers(
            Networks(config.peers),
            peers_max=config.connections_max,
            per_peer_max=config.connections_per_peer_max,
        )

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`. It ends when it is cancelled; its connections end with it."""
        bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connections: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer, inlet))
            connections.add(task)
            task.add_done_callback(ended)
            # Also of one that was cancelled before it began.
            task.add_done_callback(lambda _: writer.transport.abort())

        def ended(task: asyncio.Task[None]) -> None:
            connections.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not bug.done():
                bug.set_exception(error)

        server = await self._listen(begin)
        try:
            health.connected()
            await bug
        finally:
            server.close()
            under_way = list(connections)
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _listen(self, begin: Any) -> asyncio.Server:
        config = self._config
        try:
            tls = server_tls_context(config.tls) if config.tls is not None else None
            return await asyncio.start_server(
                begin,
                config.host,
                config.port,
                backlog=BACKLOG,
                reuse_port=config.share_port or None,
                ssl=tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if tls is not None else None,
            )
        except RetryableError as error:
            raise SourceError(error.message) from None
        except OSError as error:
            where = address_text((config.host, config.port))
            said = error.strerror or error
            raise SourceError(f"nobody can listen at {where}: {said}") from None

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inlet: Inlet
    ) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None:  # It has gone already.
            return
        address = peer[0]
        refused = self._peers.enter(address)
        if refused:
            inlet.pass_over(1, f"connections that were refused: {refused}")
            return
        try:
            connection = TcpConnection(
                self._config, self._context, reader, writer, inlet, (address, peer[1])
            )
            await connection.run()
        finally:
            self._peers.leave(address)


SOURCE = TcpSource
