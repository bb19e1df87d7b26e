"""A device or network server that posts to the door, with aiohttp's client and by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import aiohttp
from aiohttp import web

from pipeline.ingest.server import Server
from pipeline.ingest.settings import IngestSettings
from pipeline.metrics import Registry
from pipeline.rulebook.book import Integration
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Verdict
from tests.contract.peers.device import ANSWER_S, CabledPeer
from tests.contract.peers.peer import (
    BODY_BYTES,
    HOSTILE,
    NOT_UTF8,
    TRUNCATED,
    Peers,
    payload_of,
)
from tests.real.source_work import NOW_MS, Process, downlink, integration

PATH = "/in/acme/over-http"


class HttpPeer(CabledPeer):
    """Posts, and is answered 202; its own web server takes downlinks."""

    acknowledges: ClassVar[str] = "2xx"

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._session.close()

    def integration(self, **options: Any) -> Integration:
        return integration("http", "http", {"device_query": "device", **options})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        process = self.process()
        settings = IngestSettings(port=self._port, stop_timeout_s=0.2, body_timeout_s=0.3)
        unused: Any = _NothingElse()
        server = Server(process.door, unused, unused, unused, unused, Registry(), settings,
                        now_ms=lambda: NOW_MS, unready=lambda: None)  # fmt: skip
        await server.start()
        try:
            yield process
        finally:
            await server.stop()

    async def attempt(self, body: bytes) -> None:
        url = f"http://127.0.0.1:{self._cable.port}{PATH}?device=d1"
        try:
            async with self._session.post(url, data=body) as answer:
                assert answer.status == 202
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from None

    async def garbage(self, kind: str, process: Process) -> int:
        head = b"POST " + PATH.encode() + b"?device=d1 HTTP/1.1\r\nHost: x\r\n"
        long = b"Content-Length: %d\r\n\r\n" % BODY_BYTES
        match kind:
            case "truncated":
                assert await self._raw(head + long + TRUNCATED, ends=True) in (b"400", b"")
                assert await self._raw(b"POST /in/ac", ends=True) in (b"400", b"")
            case "oversized":
                assert await self._raw(head + long + b"x" * BODY_BYTES) == b"413"
                many = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
                assert await self._raw(head + many + b"\r\n") in (b"400", b"431")
            case "slow":
                assert await self._raw(head + b"Content-Length: 9\r\n\r\nx") == b"408"
            case "wrong encoding":
                length = b"Content-Length: %d\r\n" % len(NOT_UTF8)
                packed = head + b"Content-Encoding: gzip\r\n" + length + b"\r\n" + NOT_UTF8
                assert await self._raw(packed) == b"400"
                assert await self._raw(NOT_UTF8 + b"\r\n\r\n") == b"400"
                # Plain bytes are a message: the dialect `http` takes any.
                assert await self._raw(head + length + b"\r\n" + NOT_UTF8) == b"202"
            case "hostile names":
                named = head + b"\xff\xfe: x\r\nX-Long: " + b"y" * 4_000 + b"\r\n\r\n"
                assert await self._raw(named) in (b"202", b"400", b"431")
                for name in HOSTILE:
                    status = await self._get({"device": name, name: name})
                    assert status in (202, 400, 422), (name, status)
        return 0

    async def _get(self, query: dict[str, str]) -> int:
        url = f"http://127.0.0.1:{self._port}{PATH}"
        async with self._session.get(url, params=query) as answer:
            return answer.status

    async def _raw(self, data: bytes, *, ends: bool = False) -> bytes:
        """Return the status of the answer to bytes; empty: there was none. `ends`: the sender's
        side is closed behind them.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            if ends:
                writer.write_eof()
            async with asyncio.timeout(5):
                return (await reader.readline())[9:12]
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        heard: list[bytes] = []

        async def take(request: web.Request) -> web.Response:
            heard.append(payload_of(await request.read()))
            return web.Response()

        runner = web.ServerRunner(web.Server(take))  # type: ignore[arg-type]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/{{device_id}}"
        settings = SinkSettings(allowed_networks=LOOPBACK)
        context = Context("acme", "downlink-over-http", settings, lambda: NOW_MS)
        transport = DownlinkTransport(self.integration(downlink_url=url), context)
        await transport.open()
        try:
            for number in range(count):
                (result,) = await transport.deliver([downlink(number, device_id="d1")])
                assert result.verdict is Verdict.DELIVERED, result
        finally:
            await transport.close()
            await runner.cleanup()
        return heard

    def traces(self, process: Process) -> int:
        return 0  # Each request is answered, and what the answer says is checked.


class _NothingElse:
    """The rest of the server, of which nothing is asked here."""


PEERS: Peers = {"http": HttpPeer}
