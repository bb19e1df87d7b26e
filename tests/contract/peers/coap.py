"""A device that posts and observes: aiocoap's client, and datagrams made by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import ClassVar

import aiocoap
from aiocoap import Code, Message

from pipeline.model.record import REPLY_TO
from pipeline.model.reply import Reply, read_reply_to
from pipeline.rulebook.book import Integration
from tests.contract.peers.device import (
    ANSWER_S,
    DatagramCable,
    DevicePeer,
    all_sent,
    through_window,
)
from tests.contract.peers.peer import BODY_BYTES, HOSTILE, NOT_UTF8, TRUNCATED, Peers, Place, only
from tests.real.servers import free_port
from tests.real.source_work import Process, integration, until

POST = b"\x42\x02\x12%c\xab\xcd\xb6meters"  # CON POST, with an id and a token, to /meters/…

NO_COAP = [
    b"", b"\xff", b"\xff" * 50, b"\x40", b"\x4f\x02\x00\x01", b"\x42\x02\x12\x34\xab\xcd\xff",
    b"\x42\x02\x12\x35\xab\xcd\xf0", b"\x42\x02\x12\x36\xab\xcd\xb2\xff\xfe",
    b"GET / HTTP/1.1\r\n\r\n", b"\x16\xfe\xfd" * 20, b"\x42\x1f\x12\x38\xab\xcd",
    b"\x62\x45\x00\x01\xab\xcd",
]  # fmt: skip


class CoapPeer(DevicePeer):
    """Posts confirmable messages, and is answered 2.04."""

    acknowledges: ClassVar[str] = "2.04"
    limits: ClassVar[dict[str, str]] = {
        "slow": "a datagram comes whole or not at all; a message in blocks that is never ended has"
        " a limit of its own (`transfers_max`), whose test is with the transport"
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._port = free_port()
        self._cable = DatagramCable(self._port)

    async def start(self) -> None:
        await self._cable.start()
        self._client = await aiocoap.Context.create_client_context(transports=["udp6"])
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._client.shutdown()
        self._cable.stop()

    def integration(self) -> Integration:
        made = integration("http", "coap", {"device_query": "device"}, port=self._port,
                           path="meters")  # fmt: skip
        return replace(made, synchronous=True)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        async with super().serving() as process:
            stages = asyncio.ensure_future(self._answer_all(process))
            try:
                yield process
            finally:
                stages.cancel()

    async def _answer_all(self, process: Process) -> None:
        """Be the stages, which have no downlink for whoever waits for an answer."""
        answered = len(self.log.uplinks())
        while True:
            await asyncio.sleep(0.005)
            for record in self.log.uplinks()[answered:]:
                answered += 1
                way = read_reply_to(record.headers.get(REPLY_TO))
                if way is not None:
                    process.waiting.deliver(Reply(way.request, device="d1"))

    async def attempt(self, body: bytes) -> None:
        await self._ask(f"coap://127.0.0.1:{self._cable.port}/meters/d1", body, Code.CHANGED)

    async def _ask(self, uri: str, body: bytes, *codes: Code) -> None:
        request = self._client.request(Message(code=Code.POST, uri=uri, payload=body))
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await request.response
        except aiocoap.error.Error as error:
            raise OSError(str(error)) from None
        assert answer.code in codes, (uri, answer.code)

    async def cut(self) -> None:
        self._cable.cut()

    async def mend(self) -> None:
        self._cable.mend()

    async def garbage(self, kind: str, process: Process) -> int:
        uri = f"coap://127.0.0.1:{self._port}/meters"
        match kind:
            case "truncated":
                whole = POST % 1 + b"\x02d1\xff" + TRUNCATED
                self._say(*(whole[:end] for end in range(len(POST) + 2)), whole)
                return 1
            case "oversized":
                await self._ask(f"{uri}/d1", b"x" * BODY_BYTES, Code.REQUEST_ENTITY_TOO_LARGE)
                self._say(POST % 2 + b"\x02d1\xff" + b"x" * 60_000)
            case "wrong encoding":
                self._say(*NO_COAP, POST % 3 + b"\x02\xff\xfe\xff1",
                          POST % 4 + b"\x02d1\xff" + NOT_UTF8)  # fmt: skip
                return 1
            case _:
                taken = (Code.CHANGED, Code.BAD_REQUEST, Code.NOT_FOUND, Code.UNAUTHORIZED,
                         Code.BAD_OPTION)  # fmt: skip
                for name in HOSTILE:
                    with suppress(ValueError):  # The client makes no option of 300 bytes.
                        await self._ask(f"{uri}?device={name}", b"1", *taken)
        return 0

    def _say(self, *datagrams: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in datagrams:
                stranger.sendto(datagram, ("127.0.0.1", self._port))

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        assert only(process).stays_open
        uri = f"coap://127.0.0.1:{self._cable.port}/meters/d1/downlinks"
        request = self._client.request(Message(code=Code.GET, uri=uri, observe=0))
        async with asyncio.timeout(5):
            assert (await request.response).code == Code.CONTENT
        heard: list[bytes] = []

        async def listen() -> None:
            async for notification in request.observation:
                heard.append(notification.payload)  # noqa: PERF401 - it is read meanwhile

        # Who begins to listen later hears the newest alone.
        listening = asyncio.ensure_future(listen())
        await until(lambda: self.log.of("device.events"))
        await through_window(process, count)
        await until(lambda: len(heard) >= count)
        await all_sent(process, count)
        request.observation.cancel()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        return heard


PEERS: Peers = {"coap": CoapPeer}
