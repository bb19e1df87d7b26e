"""The whole pipeline between a real broker's two sides: an uplink in, a downlink out, over MQTT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.integrations.dialect import dialects
from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.servers import Mosquitto

EUI = "0a0b0c0d0e0f0102"
APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"  # that of the dialect's sample
DOWN = f"application/{APPLICATION}/device/{EUI}/command/down"
WITHIN_S = 30.0
CHAIN = """
chain: answer
on: {messages: [uplink], device_type: valve}
nodes:
  - name: close it
    send_downlink: {f_port: 10, bytes: "0f"}
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


def rules_of(folder: Path, port: int) -> Path:
    rules = folder / "rules"
    for each in ("integrations", "chains"):
        (rules / each).mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/barn.yaml").write_text(
        "dialect: chirpstack\ntransport: mqtt\ndevice_type: valve\n"
        f"connection: {{server: 'mqtt://127.0.0.1:{port}'}}\n"
    )
    (rules / "chains/answer.yaml").write_text(CHAIN)
    return rules


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await asyncio.to_thread(true)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


def test_an_uplink_is_answered_over_mqtt(tmp_path: Path, broker: Mosquitto) -> None:
    """ChirpStack's event makes a rule send a downlink, which arrives as a command of its queue;
    the events that name it move it on; the commands of a user see all of it.
    """
    rules = rules_of(tmp_path, broker.port)
    settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False)

    async def work() -> None:
        pipeline = Funicular(settings)
        await pipeline.start()
        assert pipeline.door is not None
        address = pipeline.door.address
        try:
            async with aiomqtt.Client("127.0.0.1", broker.port) as server:
                await server.subscribe(DOWN, qos=1)
                await until(lambda: state_of(address)["state"] == "connected")
                sent = await run(["send", "barn", EUI, "0102", "-r", str(rules)])
                assert sent.exit_code == 0, sent.output
                async with asyncio.timeout(WITHIN_S):
                    message = await anext(aiter(server.messages))
                command = orjson.loads(bytes(message.payload))
                assert (command["devEui"], command["data"], command["fPort"]) == (EUI, "Dw==", 10)
                for kind, more in (("txack", {}), ("ack", {"acknowledged": True})):
                    event = {**about(), "queueItemId": command["id"], **more}
                    topic = DOWN.replace("command/down", f"event/{kind}")
                    await server.publish(topic, orjson.dumps(event), qos=1)
                downlink = await until(lambda: acknowledged(address))
                assert downlink["detail"]["reference"] == command["id"]
            assert (await asyncio.to_thread(state_of, address))["messages"] == 3
            shown = await run(["integrations", "--to", address, "--tenant", "acme"])
            assert (shown.exit_code, "connected" in shown.output) == (0, True), shown.output
            await asyncio.to_thread(broker.stop, kill=True)
            await until(lambda: state_of(address)["state"] == "lost")
            shown = await run(["integrations", "--to", address, "--tenant", "acme", "--json"])
            assert shown.exit_code == 1
            assert orjson.loads(shown.output)["state"] == "lost"
            line = 'funicular_integration_connected{integration="barn",tenant="acme"} 0'
            await until(lambda: line in httpx.get(f"{address}/metrics").text)
            await asyncio.to_thread(broker.start)
            await until(lambda: state_of(address)["state"] == "connected")
        finally:
            await pipeline.stop()

    asyncio.run(work())


async def run(arguments: list[str]) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


def state_of(address: str) -> Any:
    answer = httpx.get(f"{address}/api/v1/tenants/acme/integrations")
    (only,) = answer.json()["integrations"]
    return only


def acknowledged(address: str) -> Any:
    """Return the device's one downlink, once the device has confirmed it."""
    answer = httpx.get(f"{address}/api/v1/tenants/acme/devices/{EUI}/downlinks")
    (only,) = answer.json()["downlinks"]
    return only if only["state"] == "acknowledged" else None


def about() -> dict[str, Any]:
    sample = dialects()["chirpstack"].sample(EUI, 1, b"", 1_790_000_000_000)
    document = orjson.loads(sample.body)
    return {"time": document["time"], "deviceInfo": document["deviceInfo"]}
