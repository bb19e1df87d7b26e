"""The real program shows and empties the queue of a network server that keeps one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
EUI = "0101010101010101"
DEVICE = f"/api/v1/tenants/acme/devices/{EUI}"
UP = {
    "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
    "time": "2026-07-18T09:34:15Z",
    "deviceInfo": {"applicationId": "17c82e96", "deviceName": "barn", "devEui": EUI},
    "fCnt": 4, "fPort": 1, "data": "qg==",
}  # fmt: skip


class ChirpStack:
    """As much of ChirpStack v4's REST API as the queue of a device needs."""

    def __init__(self) -> None:
        self.queue: list[dict[str, Any]] = [{"id": "other", "fPort": 9, "data": "/w=="}]
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> ChirpStack:
        app = web.Application()
        app.router.add_route("*", "/api/devices/{eui}/queue", self._queue)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _queue(self, request: web.Request) -> web.Response:
        assert request.match_info["eui"] == EUI
        assert request.headers["Grpc-Metadata-Authorization"] == "Bearer secret"
        if request.method == "GET":
            return web.json_response({"totalCount": len(self.queue), "result": self.queue})
        if request.method == "DELETE":
            self.queue.clear()
            return web.json_response({})
        item = {**(await request.json())["queueItem"], "id": f"item-{len(self.queue)}"}
        self.queue.append(item)
        return web.json_response({"id": item["id"]})


@pytest.fixture
async def server() -> AsyncIterator[ChirpStack]:
    async with ChirpStack() as server:
        yield server


async def test_queue_is_shown_and_emptied(server: ChirpStack, tmp_path: Path) -> None:
    """A downlink that ChirpStack took is known in its queue as ours, beside somebody else's; when
    the queue is emptied over there, ours says so.
    """
    rules = tmp_path / "rules"
    (rules / "integrations").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/barn.yaml").write_text(
        f"dialect: chirpstack\nauthentication: open\n"
        f"options: {{server: '{server.url}', api_key: secret}}\n"
    )
    with Program(rules, tmp_path / "data") as program:
        async with aiohttp.ClientSession(program.url) as session:
            await program.ready(session)
            async with session.post("/in/acme/barn?event=up", json=UP) as answer:
                assert answer.status in (200, 202, 204), await answer.text()
            asked = {"payload": "AQI=", "f_port": 10}
            path = f"{DEVICE}/downlinks"

            async def get(address: str) -> Any:
                async with session.get(address) as answer:
                    return await answer.json()

            async with asyncio.timeout(20):
                while True:
                    async with session.post(path, json=asked) as answer:
                        ours = (await answer.json()).get("id")
                        if answer.status == 202:
                            break
                    await asyncio.sleep(0.05)  # the uplink has not come through yet
                while (await get(f"{path}/{ours}"))["state"] != "sent":  # noqa: ASYNC110 - polled
                    await asyncio.sleep(0.05)

            shown = (await get(f"{path}?network_server=true"))["network_servers"]["barn"]
            held = [(one["payload"], one["ours"]) for one in shown["downlinks"]]
            assert held == [("/w==", ""), ("AQI=", ours)]

            async with session.delete(f"{path}?network_server=true") as answer:
                assert (await answer.json())["clearing"] == ["barn"]
            async with asyncio.timeout(20):
                while (await get(f"{path}/{ours}")).get("reason") != "cleared":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert server.queue == []
