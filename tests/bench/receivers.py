"""Receivers of deliveries in a process of their own: a good one, and ones with every fault.

Each mood has a port of its own. What the good ones get is kept, with the time of its arrival, and
given out when the measurement is over.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
PIECE = b"y" * 262_144
GOOD = ("fine", "switch", "good-1", "good-2", "good-3", "good-4")
BUSY_S = 0.005
"""How long the good ones think about a request, so that several are under way at once."""


@dataclass
class Got:
    """What a receiver got: (n, device, sent at, arrived at), times in epoch seconds."""

    rows: list[tuple[int, str, float, float]] = field(default_factory=list)
    at_once_max: int = 0
    """Requests that were under way at the same time, the most."""


class Requests(asyncio.Protocol):
    """Reads requests; `mood` is told of each body and answers by the transport."""

    def __init__(self, mood: Callable[[Requests, bytes], None], open_: set[Any]) -> None:
        self._mood = mood
        self._open = open_
        self._read = bytearray()
        self.transport: Any = None
        self.resumed: asyncio.Event = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._open.add(self)
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self.resumed.set()

    def pause_writing(self) -> None:
        self.resumed.clear()

    def resume_writing(self) -> None:
        self.resumed.set()

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._read[:end]).lower()
            length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            if len(self._read) < end + 4 + length:
                return
            body = bytes(self._read[end + 4 : end + 4 + length])
            del self._read[: end + 4 + length]
            self._mood(self, body)


class House:
    """The child's side: the servers and what they got."""

    def __init__(self) -> None:
        self.got = {name: Got() for name in GOOD}
        self.ports: dict[str, int] = {}
        self._servers: dict[str, Any] = {}
        self._open: dict[str, set[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = dict.fromkeys(GOOD, 0)

    async def begin(self) -> None:
        for name in (*GOOD, "slow", "drip", "flood", "dead"):
            await self.open(name)
        await self.close("dead")

    async def open(self, name: str) -> None:
        moods = {"slow": self._slow, "drip": self._drip, "flood": self._flood}
        mood = moods.get(name) or self._good(name)
        connections: set[Any] = self._open.setdefault(name, set())
        server = await asyncio.get_running_loop().create_server(
            lambda: Requests(mood, connections), "127.0.0.1", self.ports.get(name, 0)
        )
        self.ports[name] = server.sockets[0].getsockname()[1]
        self._servers[name] = server

    async def close(self, name: str) -> None:
        self._servers[name].close()
        for connection in list(self._open[name]):
            connection.transport.abort()

    def _good(self, name: str) -> Callable[[Requests, bytes], None]:
        loop = asyncio.get_running_loop()

        def mood(request: Requests, body: bytes) -> None:
            said, got = orjson.loads(body), self.got[name]
            got.rows.append((said["n"], said["device"], said["at"], time.time()))
            self._at_once[name] += 1
            got.at_once_max = max(got.at_once_max, self._at_once[name])
            loop.call_later(BUSY_S, answer, request)

        def answer(request: Requests) -> None:
            self._at_once[name] -= 1
            if not request.transport.is_closing():
                request.transport.write(OK)

        return mood

    def _slow(self, request: Requests, body: bytes) -> None:
        self._go(self._by_bytes(request, OK))

    def _drip(self, request: Requests, body: bytes) -> None:
        request.transport.write(ENDLESS)
        self._go(self._by_bytes(request, b"x" * 1_000))

    def _flood(self, request: Requests, body: bytes) -> None:
        request.transport.write(ENDLESS)
        self._go(self._pour(request))

    async def _by_bytes(self, request: Requests, text: bytes) -> None:
        for byte in text:
            if request.transport.is_closing():
                return
            request.transport.write(bytes([byte]))
            await asyncio.sleep(1)

    async def _pour(self, request: Requests) -> None:
        for _ in range(10_000_000_000 // len(PIECE)):
            if request.transport.is_closing():
                return
            request.transport.write(PIECE)
            await request.resumed.wait()
            await asyncio.sleep(0)

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _serve(pipe: Any) -> None:
    async def main() -> None:
        house = House()
        await house.begin()
        pipe.send(house.ports)
        while True:
            word, name = await asyncio.to_thread(pipe.recv)
            if word == "open":
                await house.open(name)
            elif word == "close":
                await house.close(name)
            elif word == "take":
                pipe.send(house.got[name])
                house.got[name] = Got()
                continue
            elif word == "count":
                pipe.send(len(house.got[name].rows))
                continue
            else:
                return
            pipe.send("done")

    uvloop.run(main())


class Receivers:
    """The parent's side. `ports` by mood; `dead` is the port where nobody listens."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        self.ports: dict[str, int] = self._pipe.recv()

    async def tell(self, word: str, name: str = "") -> Any:
        """`open`, `close`; `count` and `take` what a receiver got."""
        self._pipe.send((word, name))
        return await asyncio.to_thread(self._pipe.recv)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
