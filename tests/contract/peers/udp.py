"""A device that sends datagrams."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import ClassVar

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

ACK = b"\x06"


class UdpPeer(DevicePeer):
    """Is acknowledged by a datagram."""

    acknowledges: ClassVar[str] = "`acknowledge:`"
    limits: ClassVar[dict[str, str]] = {
        "slow": "a datagram comes whole or not at all: there is nothing to wait for"
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._port = free_port()
        self._cable = DatagramCable(self._port)

    async def start(self) -> None:
        await self._cable.start()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", self._cable.port))
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        self._cable.stop()
        self._socket.close()

    def integration(self) -> Integration:
        made = integration(
            "http", "udp", {"device_field": "device"}, port=self._port, **self.acknowledging()
        )
        return replace(made, synchronous=True)

    def acknowledging(self) -> dict[str, object]:
        """Return what the connection says of acknowledgements."""
        return {"acknowledge": {"hex": ACK.hex()}}

    async def attempt(self, body: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, body)
        await self.answered()

    async def answered(self) -> None:
        """Wait for the acknowledgement of what was sent last."""
        async with asyncio.timeout(ANSWER_S):
            assert await self._hear() == ACK

    async def _hear(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, 65_536)

    async def cut(self) -> None:
        self._cable.cut()

    async def mend(self) -> None:
        self._cable.mend()

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "truncated":
                return self._say(TRUNCATED)
            case "oversized":
                return self._say(b"x" * BODY_BYTES, b"[" * 60_000)
            case "wrong encoding":
                return self._say(NOT_UTF8, b"")
            case _:
                return self._say(*(f'{{"device":"{name}"}}'.encode() for name in HOSTILE))

    def _say(self, *datagrams: bytes) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in datagrams:
                stranger.sendto(datagram, ("127.0.0.1", self._port))
        return len(datagrams)

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        assert only(process).stays_open
        await self.send(0)
        await until(lambda: self._acknowledged and self.numbers())
        await through_window(process, count)
        async with asyncio.timeout(5):
            heard = [await self._hear() for _ in range(count)]
        await all_sent(process, count)
        return heard


class UdpUnacknowledgedPeer(UdpPeer):
    """Is not told what has arrived."""

    acknowledges: ClassVar[str] = ""
    limits: ClassVar[dict[str, str]] = {
        **UdpPeer.limits,
        "acknowledged": "without `acknowledge:` a device hears nothing, so that a datagram that the"
        " network lost, or that came while nobody listened, is not sent again",
    }

    def acknowledging(self) -> dict[str, object]:
        return {}

    async def answered(self) -> None:
        """Nothing is answered."""


PEERS: Peers = {"udp": UdpPeer, "udp, unacknowledged": UdpUnacknowledgedPeer}
