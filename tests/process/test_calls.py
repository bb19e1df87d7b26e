"""The real program asks a service, and is killed while it waits for the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120), pytest.mark.xdist_group("calls")]

FILES = {
    "funicular.yaml": "tenant: t\n",
    "integrations/plain.yaml": """
dialect: http
authentication: open
options: {device_field: device}
""",
    "sinks/archive.yaml": 'transport: file\npath: "${env:ARCHIVE}"\n',
    "sinks/service.yaml": 'transport: http\nurl: "${env:SERVICE}/ask"\ntimeout: 30s\n',
    "chains/owners.yaml": """
chain: owners
on: {messages: uplink}
nodes:
  - name: number
    script: |
      msg.twice = msg.n * 2;
      return {msg: msg, metadata: metadata, msgType: msgType};
  - name: whose
    remote_call: {to: service, body: {n: "${telemetry.twice}"}, timeout: 60s}
    failed: lost
  - name: keep
    send: {to: archive, body: {n: "${telemetry.n}", owner: "${metadata.reply.body.owner}"}}
    then: stop
  - name: lost
    send: {to: archive, body: {n: "${telemetry.n}", reason: "${metadata.reply.reason}"}}
""",
}


class Service:
    """Answers after `open` is set, and refuses numbers from 1,000 on; `busy` is set when it is
    asked `busy_at` things at once.
    """

    def __init__(self, busy_at: int) -> None:
        self.asked: list[int] = []
        self.open = asyncio.Event()
        self.busy = asyncio.Event()
        self._busy_at = busy_at

    async def ask(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body["n"])
        if len(self.asked) >= self._busy_at:
            self.busy.set()
        await self.open.wait()
        if body["n"] >= 1_000:
            return web.json_response({"error": "unknown"}, status=404)
        return web.json_response({"owner": f"o{body['n']}"})


async def serve(service: Service) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/ask", service.ask)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the archive."""
    text = path.read_text() if path.exists() else ""
    return [orjson.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def archived(path: Path, count: int) -> list[dict[str, Any]]:
    """Wait for so many lines."""
    async with asyncio.timeout(30):
        while True:
            found = lines(path)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_killed_while_a_service_is_asked(tmp_path: Path) -> None:
    """Requests that were under way at a `kill -9` are asked again after it, and each message goes
    on once, with its own answer; one that the service refuses leaves by `failed`.
    """
    folder = tmp_path / "rules"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip())
    archive = tmp_path / "archive.jsonl"
    service = Service(busy_at=4)
    runner, url = await serve(service)
    try:
        async with aiohttp.ClientSession() as session:
            program = Program(folder, tmp_path / "data", {"SERVICE": url, "ARCHIVE": str(archive)})
            with program:
                await program.ready(session)
                for n in (1, 2, 3, 500):
                    said = {"device": f"d{n}", "n": n}
                    async with session.post(f"{program.url}/in/t/plain", json=said) as answer:
                        assert answer.status == 202, await answer.text()
                async with asyncio.timeout(20):
                    await service.busy.wait()
                program.kill()
                service.open.set()
                program.start()
                await program.ready(session)

                found = await archived(archive, 4)

                assert program.stop() == 0
    finally:
        await runner.cleanup()
    bodies = sorted((line["body"] for line in found), key=lambda body: body["n"])
    assert bodies == [
        {"n": 1, "owner": "o2"},
        {"n": 2, "owner": "o4"},
        {"n": 3, "owner": "o6"},
        {"n": 500, "reason": "rejected"},
    ]
    assert sorted(service.asked) == [2, 2, 4, 4, 6, 6, 1000, 1000]
