"""The whole pipeline between a real broker's two sides, over AMQP 0-9-1 and 1.0: an uplink in, a
downlink out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiormq
import httpx
import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.clients.amqp1 import connected
from pipeline.rulebook.connections.amqp1_server import Amqp1SourceConfig
from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.azure_server import Azure
from tests.real.sink_servers import Rabbitmq
from tests.real.source_work import until

WITHIN_S = 60.0
CHAIN = """
chain: answer
on: {messages: [uplink], device_type: valve}
nodes:
  - name: close it
    send_downlink: {f_port: 10, bytes: "0f"}
"""
OVER_0_9_1 = """
dialect: ttn_v2
transport: amqp
device_type: valve
connection: {server: 'amqp://127.0.0.1:PORT'}
"""
AT_A_HUB = """
dialect: http
transport: amqp1
device_type: valve
connection:
  server: amqp://127.0.0.1:PORT
  address: hub
  event_hub: {start: earliest}
  downlinks: {address: /messages/devicebound, to: '/devices/{device_id}/messages/devicebound'}
options: {device_header: iothub-connection-device-id}
"""


@pytest.fixture
def broker() -> Iterator[Rabbitmq]:
    server = Rabbitmq().start()
    yield server
    server.remove()


@pytest.fixture
def azure() -> Iterator[Azure]:
    server = Azure().start()
    yield server
    server.stop()


def rules_of(folder: Path, integration: str, port: int) -> Path:
    rules = folder / "rules"
    for each in ("integrations", "chains"):
        (rules / each).mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/barn.yaml").write_text(integration.replace("PORT", str(port)))
    (rules / "chains/answer.yaml").write_text(CHAIN)
    return rules


async def eventually(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await asyncio.to_thread(true)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


async def run(arguments: list[str]) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


def state_of(address: str) -> Any:
    answer = httpx.get(f"{address}/api/v1/tenants/acme/integrations")
    (only,) = answer.json()["integrations"]
    return only


def sent(address: str, device: str) -> Any:
    """Return the device's one downlink, once it is handed over."""
    answer = httpx.get(f"{address}/api/v1/tenants/acme/devices/{device}/downlinks")
    found = answer.json()["downlinks"]
    return found[0] if found and found[0]["state"] in {"sent", "accepted"} else None


async def test_an_uplink_is_answered_by_the_broker(tmp_path: Path, broker: Rabbitmq) -> None:
    """What The Things Network v2 publishes makes a rule publish a downlink, where its handler
    listens; killed and back, the broker is found again.
    """
    rules = rules_of(tmp_path, OVER_0_9_1, broker.port)
    settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False)
    connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{broker.port}/")
    channel = await connection.channel()
    await channel.exchange_declare("ttn.handler", exchange_type="topic", durable=True)
    handler = (await channel.queue_declare(exclusive=True)).queue or ""
    await channel.queue_bind(handler, "ttn.handler", "*.devices.*.down")
    pipeline = Funicular(settings)
    await pipeline.start()
    assert pipeline.door is not None
    address = pipeline.door.address
    try:
        await eventually(lambda: state_of(address)["state"] == "connected")
        posted = await run(["send", "barn", "valve-1", "0102", "-r", str(rules)])
        assert posted.exit_code == 0, posted.output
        await eventually(lambda: sent(address, "sample-app:valve-1"))
        message = await channel.basic_get(handler, no_ack=True)
        assert message.routing_key == "sample-app.devices.valve-1.down"
        assert orjson.loads(message.body)["payload_raw"] == "Dw=="
        await connection.close()
        await asyncio.to_thread(broker.stop)
        await eventually(lambda: state_of(address)["state"] == "lost")
        shown = await run(["integrations", "--to", address, "--tenant", "acme", "--json"])
        assert shown.exit_code == 1
        await asyncio.to_thread(broker.start)
        await eventually(lambda: state_of(address)["state"] == "connected")
    finally:
        await pipeline.stop()


async def test_an_event_is_answered_by_the_hub(tmp_path: Path, azure: Azure) -> None:
    """What an event hub has makes a rule send a downlink to its device by the service; a restart
    of the program takes nothing twice.
    """
    rules = rules_of(tmp_path, AT_A_HUB, azure.port)
    settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False)
    azure.put_event(0, b'{"n": 1}')
    for round_ in (1, 2):
        pipeline = Funicular(settings)
        await pipeline.start()
        assert pipeline.door is not None
        address = pipeline.door.address
        try:
            await eventually(lambda count=round_: len(azure.devicebound) == count)
            await eventually(lambda at=address: sent(at, "d1"))
            state = await asyncio.to_thread(state_of, address)
            assert (state["state"], state["messages"]) == ("connected", 1)
        finally:
            await pipeline.stop()
        azure.put_event(1, b'{"n": 2}')
    to = {message.address for message in azure.devicebound}
    assert to == {"/devices/d1/messages/devicebound"}
    assert orjson.loads(bytes(azure.devicebound[0].body))["payload"] == "Dw=="


async def test_a_connection_that_is_used_no_more_ends() -> None:
    """The server's goodbye is answered at once, also where nobody reads at that moment."""
    azure = await asyncio.to_thread(Azure().start)
    config = Amqp1SourceConfig(server=f"amqp://127.0.0.1:{azure.port}", address="queue")
    async with connected(config, "idle") as connection:
        assert not connection.ended
        await asyncio.to_thread(azure.stop)
        await until(lambda: connection.ended)
