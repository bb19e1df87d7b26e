"""Windows that stay open, on a cluster: a device's connection is at one door, what is for it comes
from another, and the device moves.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from tests.kafka.brokers import Brokers
from tests.process.program import Program
from tests.real.servers import free_port

pytestmark = pytest.mark.timeout(300)
WITHIN_S = 60.0
DOWNLINKS = "/api/v1/tenants/acme/devices/pump-1/downlinks"
RULES = {
    "funicular.yaml": "tenant: acme\n",
    "integrations/pumps.yaml": (
        "dialect: http\ntransport: tcp\nanswer_timeout: 30s\n"
        "connection: {port: '${env:PUMPS_PORT}', framing: {delimiter: \"\\n\"},"
        ' acknowledge: "+", device: {handshake: " "}, token: t}\n'
        "options: {device_query: device, answer: binary}\n"
    ),
}
STAGES = ("worker", "convert", "route", "downlink", "sink")


@pytest.fixture
def programs(
    kafka: Brokers, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[list[Program], list[int]]]:
    """Two doors, each with its port for devices, and one worker for the stages."""
    rules = tmp_path / "rules"
    for name, text in RULES.items():
        path = rules / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ports = [free_port(), free_port()]
    url = f"kafka://{kafka.bootstrap}?prefix={prefix}&partitions=3&replication=1"
    env = {"FUNICULAR_LOG": url, "PUMPS_PORT": str(ports[0])}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = CliRunner().invoke(main, ["topics", "create", "-r", str(rules)])
    assert made.exit_code == 0, made.output
    with ExitStack() as stack:
        yield (
            [
                stack.enter_context(Program(rules, tmp_path / name, own, command))
                for name, own, command in (
                    ("one", env, ("worker", "ingest")),
                    ("two", {**env, "PUMPS_PORT": str(ports[1])}, ("worker", "ingest")),
                    ("stages", env, STAGES),
                )
            ],
            ports,
        )


class Pump:
    """A device that has connected to a door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Pump:
        pump = cls(*await asyncio.open_connection("127.0.0.1", port))
        pump.writer.write(b"pump-1 t\n")
        assert await pump.hear(1) == b"+"
        return pump

    async def say(self, text: bytes) -> None:
        """Send a message, and wait until it is durable."""
        self.writer.write(text + b"\n")
        assert await self.hear(1) == b"+"

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readexactly(count)

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def doors(
    programs: tuple[list[Program], list[int]],
) -> AsyncIterator[tuple[list[str], aiohttp.ClientSession]]:
    async with aiohttp.ClientSession() as session:
        for program in programs[0]:
            await program.ready(session, 90)
        addresses = [program.url for program in programs[0][:2]]
        for address in addresses:
            await until(lambda address=address: owned(session, address))
        yield addresses, session


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90):
        while True:
            if await true():
                return
            await asyncio.sleep(0.2)


async def owned(session: aiohttp.ClientSession, address: str) -> bool:
    async with session.get(address + DOWNLINKS) as answer:
        return answer.status == 200


async def test_downlinks_leave_at_the_door_that_has_the_connection(
    programs: tuple[list[Program], list[int]],
    doors: tuple[list[str], aiohttp.ClientSession],
) -> None:
    """Asked for at one door, a downlink leaves by a connection to the other, at once; without a
    connection it waits, and leaves when the device is back, at another door than before.
    """
    addresses, session = doors
    _, ports = programs

    async def ask(door: int, payload: bytes) -> None:
        body = {
            "payload": b64encode(payload).decode(),
            "integration": "pumps",
            "queue": "last",
        }
        async with session.post(addresses[door] + DOWNLINKS, json=body) as answer:
            assert answer.status == 202, await answer.text()

    async def states() -> list[Any]:
        async with session.get(addresses[0] + DOWNLINKS) as answer:
            return [each["state"] for each in (await answer.json())["downlinks"]]

    async def all_sent(count: int) -> bool:
        return await states() == ["sent"] * count

    pump = await Pump.connect(ports[0])
    await pump.say(b'{"open":true}')
    await ask(1, b"first")
    assert await pump.hear(6) == b"first\n"
    await ask(0, b"again")
    assert await pump.hear(6) == b"again\n"
    await until(lambda: all_sent(2))
    await pump.leave()
    await ask(0, b"later")
    pump = await Pump.connect(ports[1])
    assert await pump.hear(6) == b"later\n"
    await until(lambda: all_sent(3))
    await pump.say(b'{"open":false}')
    await ask(0, b"moved")
    assert await pump.hear(6) == b"moved\n"
    await until(lambda: all_sent(4))
    await pump.leave()
