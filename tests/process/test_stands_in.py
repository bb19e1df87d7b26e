"""Funicular in the place of The Things Network v2's HTTP integration and of The Things Stack's
webhooks: an application that knows nothing but those gets uplinks and sends downlinks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner

from pipeline.cli import main
from tests.process.program import Program, free_port

pytestmark = pytest.mark.process

UPLINK = {
    "app_id": "my-app",
    "dev_id": "my-dev",
    "hardware_serial": "0102030405060708",
    "port": 1,
    "counter": 7,
    "payload_raw": "AQID",
    "payload_fields": {"temperature": 21.5},
    "metadata": {"time": "2026-09-20T12:46:40Z"},
}


class World:
    """An application and a network server, in one web server."""

    def __init__(self) -> None:
        self.uplinks: asyncio.Queue[tuple[dict[str, Any], dict[str, str]]] = asyncio.Queue()
        self.downlinks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.url = ""

    async def __aenter__(self) -> World:
        app = web.Application()
        app.router.add_post("/application", self._uplink)
        app.router.add_post("/network/down", self._downlink)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _uplink(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.uplinks.put_nowait((orjson.loads(await request.read()), headers))
        return web.Response()

    async def _downlink(self, request: web.Request) -> web.Response:
        self.downlinks.put_nowait(orjson.loads(await request.read()))
        return web.Response(status=202)


def keys(data: Path, *arguments: str) -> str:
    """Run `funicular keys …` and return what it says."""
    made = CliRunner().invoke(main, ["keys", *arguments, "--data", str(data)])
    assert made.exit_code == 0, made.output
    return made.stdout


def rules_of(folder: Path, sink: str) -> Path:
    rules = folder / "rules"
    for name, text in {
        "integrations/ttn.yaml": "dialect: ttn_v2\nauthentication: open\n",
        "chains/all.yaml": "chain: all\non: {messages: uplink}\nnodes:\n"
        "  - name: out\n    send: {to: app}\n",
        "sinks/app.yaml": sink,
    }.items():
        (rules / name).parent.mkdir(parents=True, exist_ok=True)
        (rules / name).write_text(text)
    return rules


@pytest.mark.parametrize("format_", ["ttn_v2", "tts_v3"])
async def test_an_application_needs_no_change(tmp_path: Path, format_: str) -> None:
    """The uplink that the application gets leads it to an address where its downlink is taken and
    goes to the network server; once the key is revoked, it is refused.
    """
    data, port = tmp_path / "data", free_port()
    shown = next(
        word
        for word in keys(data, "create", "default", "--right", "downlink").split()
        if word.startswith("fk_")
    )
    async with World() as world, aiohttp.ClientSession() as session:
        sink = (
            f"transport: http\nurl: {world.url}/application\n"
            f"format: {{{format_}: {{url: 'http://127.0.0.1:{port}', key: '${{env:APP_KEY}}'}}}}\n"
        )
        rules = rules_of(tmp_path, sink)
        with Program(rules, data, env={"APP_KEY": shown}, port=port) as program:
            await program.ready(session)
            posted = UPLINK | {"downlink_url": f"{world.url}/network/down"}
            async with session.post(f"{program.url}/in/default/ttn", json=posted) as answer:
                assert answer.status == 202
            async with asyncio.timeout(15):
                uplink, headers = await world.uplinks.get()
            if format_ == "ttn_v2":
                address, own = uplink["downlink_url"], {}
                body: dict[str, Any] = {
                    "dev_id": uplink["dev_id"],
                    "port": 2,
                    "payload_raw": "CQ==",
                }
                assert uplink["payload_raw"] == "AQID"
            else:
                address = headers["x-downlink-push"]
                own = {"authorization": f"Bearer {headers['x-downlink-apikey']}"}
                body = {"downlinks": [{"f_port": 2, "frm_payload": "CQ=="}]}
                assert uplink["uplink_message"]["frm_payload"] == "AQID"
            async with session.post(address, json=body, headers=own) as answer:
                assert answer.status in (200, 202), await answer.text()
            async with asyncio.timeout(15):
                downlink = await world.downlinks.get()
            assert (downlink["dev_id"], downlink["port"]) == ("my-dev", 2)
            assert downlink["payload_raw"] == "CQ=="

            keys(data, "revoke", shown.split("_")[1])
            await asyncio.sleep(1.1)  # the program looks at the file of keys once a second
            async with session.post(address, json=body, headers=own) as answer:
                assert answer.status == 401
            assert shown not in program.said()
