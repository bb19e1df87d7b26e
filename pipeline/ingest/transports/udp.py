"""The source over UDP: a server that devices and gateways send datagrams to.

In: datagrams. Nobody is told of one that is lost on its way; with `acknowledge` a device knows
which are durable, and sends the others again. Out: downlinks to the address of the device's last
datagram, as long as its window lasts (`window`): so long most networks let an answer through.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from pipeline.errors import MessageError
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.ingest.windows import Leaving, Window
from pipeline.model.http import Request
from pipeline.rulebook.connections.framing import FrameReader
from pipeline.rulebook.connections.listener import Networks
from pipeline.rulebook.connections.udp_server import DATAGRAM_BYTES_MAX, UdpServerConfig

from .raw_message import WRONG_TOKEN, address_text, named, request_of

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
"""What the operating system keeps of a burst, as far as it lets us; past that it drops silently."""
SWEEP_S = 1.0

_Address = tuple[Any, ...]  # host and port first; of IPv6 there is more


class _Datagram(NamedTuple):
    data: bytes
    sender: _Address


class _Arrived(asyncio.DatagramProtocol):
    """What came and was not taken yet, bounded; what does not fit is counted, by reason."""

    def __init__(self, config: UdpServerConfig) -> None:
        self._networks = Networks(config.peers)
        self._messages_max = config.in_flight_max
        self._per_peer_max = config.in_flight_per_peer_max
        self._of: Counter[str] = Counter()
        self._waiting: deque[_Datagram] = deque()
        self.dropped: Counter[str] = Counter()
        self.came = asyncio.Event()

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        """Keep one, or count it."""
        address = addr[0]
        if not data:
            self.dropped["empty datagrams"] += 1
        elif not self._networks.admit(address):
            self.dropped["datagrams of none of the networks under `peers`"] += 1
        elif len(self._waiting) >= self._messages_max:
            self.dropped["datagrams that came faster than they are stored"] += 1
        elif self._of[address] >= self._per_peer_max:
            self.dropped["datagrams of one peer that came faster than they are stored"] += 1
        else:
            self._of[address] += 1
            self._waiting.append(_Datagram(data, addr))
        self.came.set()

    def error_received(self, exc: Exception) -> None:
        """Nothing: it says of no datagram in particular that it did not arrive."""

    def take(self, most: int) -> list[_Datagram]:
        """Return what came, the oldest first."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        for datagram in taken:
            address = datagram.sender[0]
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]
        if not self._waiting:
            self.came.clear()
        return taken


class _Windows:
    """The peers that can be sent downlinks now, the one heard longest ago first."""

    def __init__(self, open_: Callable[[_Address], Window], config: UdpServerConfig) -> None:
        self._open = open_
        self._lasts_s = config.window
        self._windows_max = config.windows_max
        self._windows: OrderedDict[_Address, tuple[float, Window]] = OrderedDict()

    def heard(self, address: _Address, now_s: float) -> str:
        """Return the way back to a peer that was heard now."""
        _, window = self._windows.pop(address, (0.0, None))
        if window is None:
            window = self._open(address)
        self._windows[address] = (now_s, window)
        while len(self._windows) > self._windows_max:
            self.close(next(iter(self._windows)))
        return window.way_back()

    def sweep(self, now_s: float) -> None:
        """Close those whose time is up."""
        while self._windows:
            address, (heard_s, _) = next(iter(self._windows.items()))
            if heard_s + self._lasts_s > now_s:
                return
            self.close(address)

    def close(self, address: _Address) -> None:
        """Close a peer's window."""
        self._windows.pop(address)[1].close()

    def close_all(self) -> None:
        """Close all of them."""
        for address in list(self._windows):
            self.close(address)


class UdpSource:
    """See `source.Source`."""

    name = "udp"
    Config = UdpServerConfig

    def __init__(self, config: UdpServerConfig, context: Context) -> None:
        self._config = config
        self._context = context

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`. It ends when it is cancelled."""
        arrived = _Arrived(self._config)
        transport = await self._listen(arrived)
        windows = None
        if self._context.integration.stays_open:
            windows = _Windows(
                lambda address: inlet.window(
                    lambda leaving: self._send(transport, address, leaving), self._config.window
                ),
                self._config,
            )
        try:
            health.connected()
            await self._read(arrived, transport, inlet, windows)
        finally:
            if windows is not None:
                windows.close_all()
            transport.close()

    async def _listen(self, arrived: _Arrived) -> asyncio.DatagramTransport:
        config = self._config
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: arrived,
                local_addr=(config.host, config.port),
                reuse_port=config.share_port or None,
            )
        except OSError as error:
            where = address_text((config.host, config.port))
            said = error.strerror or error
            raise SourceError(f"nobody can listen at {where}: {said}") from None
        with suppress(OSError, AttributeError):
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        return transport

    async def _read(
        self,
        arrived: _Arrived,
        transport: asyncio.DatagramTransport,
        inlet: Inlet,
        windows: _Windows | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await arrived.came.wait()
            datagrams = arrived.take(self._context.batch_max)
            await self._take(datagrams, transport, inlet, windows)
            if windows is not None:
                windows.sweep(loop.time())
            dropped, arrived.dropped = arrived.dropped, Counter()
            for reason, count in dropped.items():
                inlet.pass_over(count, reason)

    async def _take(
        self,
        datagrams: list[_Datagram],
        transport: asyncio.DatagramTransport,
        inlet: Inlet,
        windows: _Windows | None,
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        requests: list[Request] = []
        ways_back: list[str] = []
        counts: list[tuple[_Address, int]] = []
        for datagram in datagrams:
            found, fault = self._requests(datagram, inlet)
            if fault:
                rest = request_of(datagram.data, "", address_text(datagram.sender))
                await inlet.bury(rest, "frame_length", f"the datagram is not read: {fault}")
            if found:
                back = windows.heard(datagram.sender, now_s) if windows is not None else ""
                requests += found
                ways_back += [back] * len(found)
                counts.append((datagram.sender, len(found)))
        if requests:
            await inlet.take(requests, ways_back=ways_back)
        if self._config.acknowledge is not None:
            for sender, count in counts:
                transport.sendto(self._config.acknowledge * count, sender)

    def _requests(self, datagram: _Datagram, inlet: Inlet) -> tuple[list[Request], str]:
        """Return a datagram's messages, and what is wrong with the rest of it."""
        config = self._config
        messages, fault = [datagram.data], ""
        if config.framing is not None:
            frames = FrameReader(config.framing, DATAGRAM_BYTES_MAX)
            messages = frames.feed(datagram.data)
            if frames.fault or frames.within:
                fault = frames.fault or "it ends within a frame"
        peer = address_text(datagram.sender)
        requests = []
        for message in messages:
            address = datagram.sender[0]
            found = named(config.device, message, address, token=config.wanted)
            if config.proven(found.name, found.token):
                requests.append(request_of(found.body, found.name, peer))
            else:
                inlet.pass_over(1, WRONG_TOKEN)
        return requests, fault

    def _send(
        self, transport: asyncio.DatagramTransport, address: _Address, leaving: Leaving
    ) -> None:
        """Send a downlink. That it left is all that can be known."""
        framing = self._config.framing
        try:
            datagram = framing.frame(leaving.body) if framing is not None else leaving.body
        except MessageError as error:
            leaving.told("refused", error.message)
            return
        if len(datagram) > DATAGRAM_BYTES_MAX:
            said = f"the downlink has {len(datagram)} bytes; a datagram has {DATAGRAM_BYTES_MAX}"
            leaving.told("refused", said)
        elif transport.is_closing():
            leaving.told("too_late")
        else:
            transport.sendto(datagram, address)
            leaving.told("answered")


SOURCE = UdpSource
