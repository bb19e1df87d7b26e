"""The whole pipeline with devices at its own doors: over TCP, UDP and CoAP an uplink comes in, and
downlinks leave by the way that it came, at once and later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiocoap
import httpx
import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.servers import free_port

WITHIN_S = 30.0
CHAIN = """
chain: answer
on: {messages: [uplink], device_type: valve}
nodes:
  - name: only when asked
    filter: telemetry.open == true
  - name: close it
    send_downlink: {bytes: "0f"}
"""
CONNECTIONS = {
    "tcp": 'framing: {delimiter: "\\n"}, acknowledge: "+", device: {handshake: " "}, token: t',
    "udp": 'window: 10s, acknowledge: "+", device: {head: ";"}, token: t',
    "coap": "token: t",
}
OPEN = b'{"open":true}'
CLOSED = b'{"open":false}'


def rules_of(folder: Path) -> tuple[Path, dict[str, int]]:
    rules = folder / "rules"
    for each in ("integrations", "chains"):
        (rules / each).mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    ports = {name: free_port() for name in CONNECTIONS}
    for name, connection in CONNECTIONS.items():
        (rules / f"integrations/{name}.yaml").write_text(
            f"dialect: http\ntransport: {name}\ndevice_type: valve\nanswer_timeout: 10s\n"
            f"connection: {{port: {ports[name]}, {connection}}}\n"
            "options: {device_query: device, answer: binary}\n"
        )
    (rules / "chains/answer.yaml").write_text(CHAIN)
    return rules, ports


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[str, Path, dict[str, int]]]:
    rules, ports = rules_of(folder)
    pipeline = Funicular(Settings(rules=(rules,), data=folder / "data", port=0, watch=False))
    await pipeline.start()
    assert pipeline.door is not None
    address = pipeline.door.address
    try:
        await until(lambda: all_listen(address))
        yield address, rules, ports
    finally:
        await pipeline.stop()


def all_listen(address: str) -> bool:
    answer = httpx.get(f"{address}/api/v1/tenants/acme/integrations")
    return all(each["state"] == "connected" for each in answer.json()["integrations"])


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await asyncio.to_thread(true)):  # noqa: ASYNC110 - another thread
            await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def hear(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        return await reader.readexactly(count)


def ask_for_downlink(address: str, device: str, payload: str, integration: str = "") -> None:
    url = f"{address}/api/v1/tenants/acme/devices/{device}/downlinks"
    body = {"payload": payload, **({"integration": integration} if integration else {})}
    answer = httpx.post(url, json=body)
    assert answer.status_code == 202, answer.text


def states(address: str, device: str) -> list[str]:
    answer = httpx.get(f"{address}/api/v1/tenants/acme/devices/{device}/downlinks")
    return [each["state"] for each in answer.json()["downlinks"]]


async def test_tcp(tmp_path: Path) -> None:
    """A rule's downlink comes on the connection, an application's later one as well; without a
    connection it waits, and leaves when the device is back, before it has said a word.
    """
    async with running(tmp_path) as (address, _, ports):
        async with connected(ports["tcp"]) as (reader, writer):
            writer.write(b"pump-1 t\n" + OPEN + b"\n")
            heard = await hear(reader, 4)
            assert (heard.count(b"+"), heard.replace(b"+", b"")) == (2, b"\x0f\n"), heard
            for payload in ("MQ==", "Mg==", "Mw=="):
                await asyncio.to_thread(ask_for_downlink, address, "pump-1", payload)
            assert await hear(reader, 6) == b"1\n2\n3\n"
            await until(lambda: states(address, "pump-1") == ["sent"] * 4)
        await asyncio.to_thread(ask_for_downlink, address, "pump-1", "NA==")
        await until(lambda: states(address, "pump-1")[0] == "queued")
        async with connected(ports["tcp"]) as (reader, writer):
            writer.write(b"pump-1 t\n")
            heard = await hear(reader, 3)
            assert heard.replace(b"+", b"") == b"4\n"
            await until(lambda: states(address, "pump-1") == ["sent"] * 5)


async def test_a_new_device_is_reached_by_its_handshake(tmp_path: Path) -> None:
    """A device that has never said anything gets what was asked for by its integration."""
    async with running(tmp_path) as (address, _, ports):
        await asyncio.to_thread(ask_for_downlink, address, "new-1", "MQ==", "tcp")
        async with connected(ports["tcp"]) as (reader, writer):
            writer.write(b"new-1 t\n")
            heard = await hear(reader, 3)
            assert heard.replace(b"+", b"") == b"1\n"


class Heard(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.put_nowait(data)


async def test_udp(tmp_path: Path) -> None:
    """A rule's downlink comes to the address of the uplink, an application's within the window."""
    async with running(tmp_path) as (address, _, ports):
        transport, heard = await asyncio.get_running_loop().create_datagram_endpoint(
            Heard, remote_addr=("127.0.0.1", ports["udp"])
        )
        transport.sendto(b"pump-2;t;" + OPEN)
        async with asyncio.timeout(WITHIN_S):
            got = {await heard.datagrams.get(), await heard.datagrams.get()}
        assert got == {b"+", b"\x0f"}
        await asyncio.to_thread(ask_for_downlink, address, "pump-2", "MQ==")
        async with asyncio.timeout(WITHIN_S):
            assert await heard.datagrams.get() == b"1"
        await until(lambda: states(address, "pump-2") == ["sent", "sent"])
        transport.close()


async def test_coap(tmp_path: Path) -> None:
    """A rule's downlink is in the answer, an application's in a notification."""
    async with running(tmp_path) as (address, _, ports):
        client = await aiocoap.Context.create_client_context(transports=["udp6"])
        uri = f"coap://127.0.0.1:{ports['coap']}/coap/pump-3/t"
        message = aiocoap.Message(code=aiocoap.Code.POST, uri=uri, payload=OPEN)
        async with asyncio.timeout(WITHIN_S):
            answer = await client.request(message).response
        assert (answer.code, answer.payload) == (aiocoap.Code.CHANGED, b"\x0f")
        observe = aiocoap.Message(code=aiocoap.Code.GET, uri=f"{uri}/downlinks", observe=0)
        request = client.request(observe)
        async with asyncio.timeout(WITHIN_S):
            await request.response
            await asyncio.to_thread(ask_for_downlink, address, "pump-3", "MQ==")
            notification = await anext(aiter(request.observation))
        assert notification.payload == b"1"
        await until(lambda: states(address, "pump-3") == ["sent", "sent"])
        request.observation.cancel()
        await client.shutdown()


@pytest.mark.parametrize("transport", sorted(CONNECTIONS))
async def test_send_and_see(tmp_path: Path, transport: str) -> None:
    """`funicular send` goes the device's way, shows what came back, and `funicular integrations`
    has counted it; a wrong token is said.
    """
    async with running(tmp_path) as (address, rules, _):
        sent = await run(["send", transport, "pump-9", "0102", "-r", str(rules)])
        assert sent.exit_code == 0, sent.output
        shown = await run(["integrations", "--to", address, "--tenant", "acme", "--json"])
        assert shown.exit_code == 0, shown.output
        found = {e["transport"]: e for e in map(orjson.loads, shown.output.splitlines())}
        assert (found[transport]["messages"], found[transport]["state"]) == (1, "connected")
        path = rules / f"integrations/{transport}.yaml"
        path.write_text(path.read_text().replace("token: t", "token: wrong"))
        refused = await run(["send", transport, "pump-9", "0102", "-r", str(rules)])
        assert refused.exit_code == 2, refused.output


async def run(arguments: list[str]) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)
