"""The whole pipeline beside a machine that speaks OPC-UA: a value in, a write out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.opcua_plant import plant, run

WITHIN_S = 30.0
CHAIN = """
chain: cool
on: {messages: [uplink], device_type: oven}
nodes:
  - name: too warm
    filter: has(telemetry.temperature) && telemetry.temperature > 200.0
  - name: cool it
    send_downlink: {payload: {setpoint: 180}}
"""


def rules_of(folder: Path, port: int) -> Path:
    rules = folder / "rules"
    for each in ("integrations", "chains"):
        (rules / each).mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/plant.yaml").write_text(
        "dialect: opcua\ntransport: opcua\ndevice_type: oven\nconnection:\n"
        f"  server: opc.tcp://127.0.0.1:{port}\n  publishing_interval: 100ms\n"
        '  browse: [{path: "Objects/{line:Line*}/{device_id}/{field}"}]\n'
    )
    (rules / "chains/cool.yaml").write_text(CHAIN)
    return rules


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await asyncio.to_thread(true)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


def test_a_warm_oven_is_cooled(tmp_path: Path) -> None:
    """A rule reads a node and writes another one, with its own type; the downlink's state says
    that the server took it, and the commands of a user see all of it.
    """

    async def work() -> None:
        async with plant() as server:
            oven = await (await server.line("Line1")).add_object(server.index, "oven1")
            temperature = await server.variable(oven, "temperature", 20.0)
            setpoint = await server.variable(oven, "setpoint", 250.0)
            counter = await server.variable(oven, "counter", 0)
            rules = rules_of(tmp_path, server.port)
            settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False)
            pipeline = Funicular(settings)
            await pipeline.start()
            assert pipeline.door is not None
            address = pipeline.door.address
            try:
                await until(lambda: integration_of(address)["state"] == "connected")
                await temperature.write_value(210.0)
                downlink = await until(lambda: sent(address))
                assert downlink["fields"] == {"setpoint": 180}
                assert await setpoint.read_value() == 180.0
                taken = (await asyncio.to_thread(integration_of, address))["messages"]
                shown = await command(["send", "plant", "oven1", "01", "-r", str(rules)])
                assert shown.exit_code == 0, shown.output
                assert await counter.read_value() == 1
                await until(lambda: integration_of(address)["messages"] > taken)
                shown = await command(["integrations", "--to", address, "--tenant", "acme"])
                assert (shown.exit_code, "connected" in shown.output) == (0, True), shown.output
                shown = await command(["send", "plant", "oven2", "01", "-r", str(rules)])
                assert shown.exit_code == 2
                assert "no node for counter, payload" in shown.output
            finally:
                await pipeline.stop()

    run(work)


async def command(arguments: list[str]) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


def integration_of(address: str) -> Any:
    (only,) = httpx.get(f"{address}/api/v1/tenants/acme/integrations").json()["integrations"]
    return only


def sent(address: str) -> Any:
    """Return the oven's downlink, once the server took it."""
    answer = httpx.get(f"{address}/api/v1/tenants/acme/devices/oven1/downlinks")
    found = answer.json()["downlinks"] if answer.status_code == 200 else []
    return next((each for each in found if each["state"] == "sent"), None)
