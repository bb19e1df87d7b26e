"""What the tests of sinks on real servers share: transports, deliveries, a cable to be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import RetryableError
from pipeline.model.delivery import Delivery, Origin
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Result, Transport, Verdict, transports

NOW_MS = 1_790_000_000_000
SETTINGS = SinkSettings(allowed_networks=LOOPBACK)
DELIVERED, REFUSED, POSTPONED = Verdict.DELIVERED, Verdict.REFUSED, Verdict.POSTPONED


def made(name: str, **config: Any) -> Transport:
    """Return a transport that is not opened, of tenant `acme` and sink `app`."""
    kind = transports()[name]
    return kind(
        kind.Config.model_validate(config), Context("acme", "app", SETTINGS, lambda: NOW_MS)
    )


@asynccontextmanager
async def opened(name: str, **config: Any) -> AsyncIterator[Transport]:
    """Give an open transport; close it at the end."""
    transport = made(name, **config)
    try:
        await transport.open()
        yield transport
    finally:
        await transport.close()


def delivery(number: int, device: str = "dev1", body: Any = None, **more: Any) -> Delivery:
    """Return the delivery `d<number>`, an uplink of a thermostat."""
    body = {"n": number, "é": [None, 1.5]} if body is None else body
    origin = Origin(type="uplink", integration="in-1", device_type="thermostat")
    return Delivery(
        f"d{number}", "acme", device, "app", NOW_MS + number, body, origin=origin, **more
    )


def deliveries(count: int, devices: int = 2) -> list[Delivery]:
    """Return as many deliveries, of devices in turn."""
    return [delivery(number, f"dev{number % devices}") for number in range(count)]


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Return the verdicts alone."""
    return [result.verdict for result in results]


async def comes_back(transport: Transport, batch: Sequence[Delivery]) -> list[Result]:
    """Deliver until it works: what a destination does after a RetryableError, without its waits."""
    for _ in range(200):
        try:
            results = await transport.deliver(batch)
        except (RetryableError, OSError):
            await asyncio.sleep(0.05)
        else:
            return results
    pytest.fail("it never came back")


class Cable:
    """Carries TCP connections to a port of loopback; it can be cut, and mended."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Cable:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        """Take connections, at the same port as before."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, there_writer}
        for one, other in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.ensure_future(self._pump(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(65_536):
                writer.write(block)
                await writer.drain()
        except (ConnectionError, OSError):
            pass
        finally:
            writer.transport.abort()
