"""What peers share that are devices, which connect to Funicular: one that waits for each
acknowledgement and repeats until it has it, and a cable for datagrams.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import ClassVar

from tests.contract.peers.peer import Peer, Place, message
from tests.real.servers import free_port
from tests.real.sink_work import Cable
from tests.real.source_work import Process

PAUSE_S = 0.05
ANSWER_S = 1.0


class DevicePeer(Peer):
    """A device with messages to send, one after the other."""

    acknowledges: ClassVar[str] = "the device is answered"
    connects: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._acknowledged = 0
        self._waiting: asyncio.Queue[int] = asyncio.Queue()
        self._sending: asyncio.Task[None] | None = None

    @abstractmethod
    async def attempt(self, body: bytes) -> None:
        """Send a message, and return when it is acknowledged. OSError (TimeoutError among them):
        it is not.
        """

    async def start(self) -> None:
        self._sending = asyncio.ensure_future(self._send_all())

    async def stop(self) -> None:
        assert self._sending is not None
        self._sending.cancel()
        (ended,) = await asyncio.gather(self._sending, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended

    async def _send_all(self) -> None:
        while True:
            number = await self._waiting.get()
            while not await self._arrived(message(number)):  # noqa: ASYNC110 - what devices do
                await asyncio.sleep(PAUSE_S)
            self._acknowledged += 1

    async def _arrived(self, body: bytes) -> bool:
        try:
            await self.attempt(body)
        except OSError:
            return False
        return True

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            self._waiting.put_nowait(number)

    async def acknowledged(self) -> int:
        return self._acknowledged


class CabledPeer(DevicePeer):
    """One that reaches Funicular's port through a cable, which can be cut."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._port = free_port()
        self._cable = Cable(self._port)

    async def start(self) -> None:
        await self._cable.mend()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._cable.cut()

    async def cut(self) -> None:
        await self._cable.cut()

    async def mend(self) -> None:
        await self._cable.mend()


async def through_window(process: Process, count: int, device: str = "d1") -> None:
    """Send downlinks through the window of a device's last message."""
    way = process.way_to(device)
    assert way.mode == "open"
    for number in range(count):
        process.send(way, f"l{number}", bytes([number]), device)


async def all_sent(process: Process, count: int) -> None:
    """Wait until so many downlinks were reported, and see that each counts as sent."""
    assert await process.told(count) == [(f"l{number}", "sent", "") for number in range(count)]


class DatagramCable:
    """Carries datagrams to a port of loopback and back; it can be cut, and mended. Each sender has
    a socket of its own towards the port, so that it keeps its address.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._whole = True
        self._near: asyncio.DatagramTransport | None = None
        self._far: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self.port = 0

    async def start(self) -> None:
        """Take datagrams."""
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(
            lambda: _Near(self), local_addr=("127.0.0.1", 0)
        )
        self.port = self._near.get_extra_info("sockname")[1]

    def cut(self) -> None:
        """Lose what comes from now on."""
        self._whole = False

    def mend(self) -> None:
        """Carry what comes from now on."""
        self._whole = True

    def stop(self) -> None:
        """Be gone."""
        for each in (self._near, *self._far.values()):
            if each is not None:
                each.close()

    async def there(self, data: bytes, sender: tuple[str, int]) -> None:
        """Carry what a device sent."""
        if not self._whole:
            return
        if sender not in self._far:
            loop = asyncio.get_running_loop()
            self._far[sender], _ = await loop.create_datagram_endpoint(
                lambda: _Far(self, sender), remote_addr=("127.0.0.1", self._to)
            )
        self._far[sender].sendto(data)

    def back(self, data: bytes, sender: tuple[str, int]) -> None:
        """Carry what it is answered."""
        if self._whole and self._near is not None:
            self._near.sendto(data, sender)


class _Near(asyncio.DatagramProtocol):
    def __init__(self, cable: DatagramCable) -> None:
        self._cable = cable
        self._arrived: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self._carrying = asyncio.ensure_future(self._carry())

    async def _carry(self) -> None:
        while True:
            await self._cable.there(*await self._arrived.get())

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        self._arrived.put_nowait((data, sender))

    def connection_lost(self, _: Exception | None) -> None:
        self._carrying.cancel()


class _Far(asyncio.DatagramProtocol):
    def __init__(self, cable: DatagramCable, sender: tuple[str, int]) -> None:
        self._cable = cable
        self._sender = sender

    def datagram_received(self, data: bytes, _: tuple[str, int]) -> None:
        self._cable.back(data, self._sender)

    def error_received(self, _: Exception) -> None:
        """Nobody listens there now."""
