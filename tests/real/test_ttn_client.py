"""The Things Network's own published client (npm `ttn`, 2.0.1) as the application: it understands
what a sink publishes, and what it publishes itself is what our downlinks are.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import orjson
import pytest

from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import Downlink, State
from pipeline.model.uplink import Link
from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.servers import Mosquitto, program

WITHIN_S = 30.0
CLIENT = """
const ttn = require("ttn");
const client = new ttn.Client("127.0.0.1", "acme", "key", {port: Number(process.argv[2])});
const say = (what) => process.stdout.write(JSON.stringify(what) + "\\n");
client.on("error", (error) => { throw error; });
client.on("message", (device, data) => {
  say({device, bytes: [...data.payload_raw], data});
  client.send(device, [15], 10);
});
client.mqtt.on("packetreceive", (packet) => { if (packet.cmd === "suback") say("listening"); });
"""
UP = {
    "app_id": "acme", "dev_id": "room-1", "hardware_serial": "0004A30B001C0530", "port": 3,
    "counter": 7, "payload_raw": "AQI=", "metadata": {"time": "2026-11-21T13:00:00Z"},
}  # fmt: skip
RULES = {
    "funicular.yaml": "tenant: acme\n",
    "integrations/ttn.yaml": "dialect: ttn_v2\nauthentication: open\n",
    "chains/all.yaml": (
        "chain: all\non: {messages: [uplink]}\nnodes:\n  - name: on\n    send: {to: broker}\n"
    ),
    "sinks/broker.yaml": (
        "transport: mqtt\nserver: mqtt://127.0.0.1:PORT\n"
        "topic: '{application_id}/devices/{device_id}/up'\nformat: ttn_v2\n"
    ),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the client; it is two packages and their own."""
    folder = tmp_path_factory.mktemp("npm")
    npm = program("npm", "npm")
    subprocess.run(
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "ttn@2.0.1"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (folder / "client.js").write_text(CLIENT)
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


def rules_of(folder: Path, port: int) -> Path:
    rules = folder / "rules"
    for name, text in RULES.items():
        file = rules / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("PORT", str(port)))
    return rules


async def test_an_application_of_v2_hears_us_and_speaks_as_we_do(
    tmp_path: Path, broker: Mosquitto, client: Path
) -> None:
    """An uplink that was posted comes to the client with its device, bytes, port and counter; the
    downlink that it then publishes is what our dialect publishes for the same bytes.
    """
    rules = rules_of(tmp_path, broker.port)
    settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False)
    pipeline = Funicular(settings)
    process = await asyncio.create_subprocess_exec(
        program("node", "nodejs"), "client.js", str(broker.port), cwd=client,
        stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    await pipeline.start()
    try:
        assert pipeline.door is not None
        async with aiomqtt.Client("127.0.0.1", broker.port) as network:
            await network.subscribe("acme/devices/+/down", qos=1)
            assert await said(process) == "listening"
            async with httpx.AsyncClient() as http:
                answer = await http.post(f"{pipeline.door.address}/in/acme/ttn", json=UP)
            assert answer.status_code == 202
            heard = await said(process)
            async with asyncio.timeout(WITHIN_S):
                down = await anext(aiter(network.messages))
    finally:
        process.kill()
        await process.wait()
        await pipeline.stop()
    assert (heard["device"], heard["bytes"]) == ("room-1", [1, 2])
    assert {key: heard["data"][key] for key in ("app_id", "dev_id", "port", "counter")} == {
        key: UP[key] for key in ("app_id", "dev_id", "port", "counter")
    }
    ours = publication()
    assert ours.topic == down.topic.value
    theirs = orjson.loads(bytes(down.payload))
    assert {key: orjson.loads(ours.payload)[key] for key in theirs} == theirs


def publication() -> Any:
    """Return what our dialect publishes for the same downlink."""
    dialect: Any = dialects()["ttn_v2"]
    downlink = Downlink(
        id="d1", tenant="acme", device="acme:room-1", integration="ttn", state=State.SENDING,
        requested_ms=1, changed_ms=1, payload=b"\x0f", f_port=10,
    )  # fmt: skip
    link = Link(application_id="acme", device_id="room-1")
    return dialect.publication(downlink, link, dialect.options())


async def said(process: asyncio.subprocess.Process) -> Any:
    """Return the client's next line."""
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        line = await process.stdout.readline()
    assert line, "the client ended"
    return orjson.loads(line)
