"""A device on a TCP connection: frames of a length and so many bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from pipeline.rulebook.book import Integration
from tests.contract.peers.device import ANSWER_S, CabledPeer, all_sent, through_window
from tests.contract.peers.peer import (
    BODY_BYTES,
    HOSTILE,
    NOT_UTF8,
    TRUNCATED,
    Peers,
    Place,
    message,
    only,
)
from tests.real.source_work import Process, integration, until

ACK = b"\x06"
FRAME_TIMEOUT_S = 0.3


def framed(body: bytes) -> bytes:
    """Return a frame."""
    return len(body).to_bytes(2, "big") + body


class TcpPeer(CabledPeer):
    """Is acknowledged by a byte."""

    acknowledges: ClassVar[str] = "`acknowledge:`"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._opened: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def stop(self) -> None:
        await super().stop()
        self._leave()

    def _leave(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].transport.abort()

    def integration(self) -> Integration:
        made = integration(
            "http", "tcp", {"device_field": "device"}, port=self._port, framing={"length": 2},
            frame_bytes_max=BODY_BYTES // 2, frame_timeout=FRAME_TIMEOUT_S,
            connections_per_peer_max=1_000, **self.acknowledging(),
        )  # fmt: skip
        return replace(made, synchronous=True)

    def acknowledging(self) -> dict[str, object]:
        """Return what the connection says of acknowledgements."""
        return {"acknowledge": {"hex": ACK.hex()}}

    async def attempt(self, body: bytes) -> None:
        try:
            if self._opened is None:
                self._opened = await asyncio.open_connection("127.0.0.1", self._cable.port)
            reader, writer = self._opened
            writer.write(framed(body))
            await self.answered(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._leave()
            raise OSError(str(error)) from None

    async def answered(self, reader: asyncio.StreamReader) -> None:
        """Wait for the acknowledgement of what was written last."""
        async with asyncio.timeout(ANSWER_S):
            assert await reader.readexactly(1) == ACK

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "truncated":
                await self._say(framed(message(1))[:-3], closes=False)
                await self._say(framed(TRUNCATED), closes=False)
                return 1
            case "oversized":
                await self._say(b"\xff\xff" + b"x" * 100, closes=True)
                await self._say(b"GET / HTTP/1.1\r\n\r\n", closes=True)
                return 2
            case "slow":
                await self._say(framed(message(1))[:1], closes=True)
                return 1
            case "wrong encoding":
                await self._say(framed(NOT_UTF8) + framed(b""), closes=False)
                return 2
            case _:
                names = [f'{{"device":"{name}"}}'.encode() for name in HOSTILE]
                await self._say(b"".join(map(framed, names)), closes=False)
                return len(names)

    async def _say(self, data: bytes, *, closes: bool) -> None:
        """Connect and say it; `closes`: until the other side closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(data)
        await writer.drain()
        if closes:
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    await reader.read()
        writer.close()

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        assert only(process).stays_open
        await self.send(0)
        await until(lambda: self._acknowledged and self.numbers())
        await through_window(process, count)
        assert self._opened is not None
        reader = self._opened[0]
        async with asyncio.timeout(5):
            heard = [await reader.readexactly(3) for _ in range(count)]
        await all_sent(process, count)
        assert {each[:2] for each in heard} == {b"\x00\x01"}
        return [each[2:] for each in heard]


class TcpUnacknowledgedPeer(TcpPeer):
    """Is not told what has arrived."""

    acknowledges: ClassVar[str] = ""
    limits: ClassVar[dict[str, str]] = {
        "acknowledged": "without `acknowledge:` a device hears nothing of its messages, so that it"
        " cannot know which of those that it wrote into a connection that broke have arrived"
    }

    def acknowledging(self) -> dict[str, object]:
        return {}

    async def answered(self, reader: asyncio.StreamReader) -> None:
        if reader.at_eof() or reader.exception() is not None:
            raise ConnectionResetError


PEERS: Peers = {"tcp": TcpPeer, "tcp, unacknowledged": TcpUnacknowledgedPeer}
