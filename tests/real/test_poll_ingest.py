"""An API that is polled, by the whole program: nothing lost or doubled over an end of the process,
also of what came live.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
from aiohttp import web

from pipeline.integrations.dialect import dialects
from pipeline.settings import Settings
from pipeline.sink.addresses import LOOPBACK
from pipeline.wiring import Funicular
from tests.process.program import Program

WITHIN_S = 40.0
LIVE = "dialect: tts_v3\nauthentication: open\n"
STORED = """
dialect: tts_v3
transport: poll
connection: {{storage: '{url}', key: secret, interval: 1s}}
options: {{application_id: sample-app}}
"""
READINGS = """
dialect: http
transport: poll
connection:
  url: {url}/readings
  bearer: secret
  interval: 1s
  query: {{after: "${{cursor}}"}}
  items: body.readings
  cursor: items[size(items) - 1].n
options: {{device_field: d}}
"""
CHAIN = """
chain: keep
on: {messages: [uplink]}
nodes:
  - name: out
    send: {to: out, body: {f_cnt: "${message.f_cnt}", telemetry: "${telemetry}"}}
"""


class Api:
    """A network server's storage, and a plain API; `trouble` is a status that it gives instead."""

    def __init__(self) -> None:
        self.stored: list[dict[str, Any]] = []
        self.readings: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.trouble = 0
        self.body: bytes | None = None
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Api]:
        app = web.Application()
        storage = "/api/v3/as/applications/sample-app/packages/storage/uplink_message"
        app.router.add_get(storage, self._storage)
        app.router.add_get("/readings", self._readings)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _storage(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        after = request.query["after"]
        self.asked.append(after)
        found = [each for each in self.stored if each["received_at"] > after]
        return web.Response(body=b"\n\n".join(orjson.dumps({"result": each}) for each in found))

    async def _readings(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        self.asked.append(request.query.get("after", ""))
        if self.trouble:
            return web.Response(status=self.trouble, headers={"retry-after": "1"})
        if self.body is not None:
            return web.Response(body=self.body)
        after = int(request.query.get("after", "0"))
        found = [each for each in self.readings if each["n"] > after][:3]
        return web.json_response({"readings": found})


def rules_of(folder: Path, **integrations: str) -> Path:
    rules = folder / "rules"
    for each in ("integrations", "chains", "sinks"):
        (rules / each).mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    for name, text in integrations.items():
        (rules / f"integrations/{name}.yaml").write_text(text)
    (rules / "chains/keep.yaml").write_text(CHAIN)
    (rules / "sinks/out.yaml").write_text(f"transport: file\npath: {folder}/out.jsonl\n")
    return rules


def out_of(folder: Path) -> list[Any]:
    path = folder / "out.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [orjson.loads(line) for line in lines]
    # A sink may bring one delivery twice after a kill, under one id.
    return list({each["id"]: each["body"] for each in found}.values())


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := true()):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


def uplink(number: int, age_s: float = 0.0) -> dict[str, Any]:
    """Return a message as The Things Stack brings it; its storage has it without correlation."""
    time = datetime.now(UTC) - timedelta(seconds=age_s)
    sample: Any = dialects()["tts_v3"]
    body = sample.sample("dev1", number, bytes([number]), int(time.timestamp() * 1_000)).body
    message: dict[str, Any] = orjson.loads(body)
    message["uplink_message"]["session_key_id"] = "AXPoziFRvbcEguvZQoCCZw=="
    message["uplink_message"].setdefault("received_at", message["received_at"])
    return message


async def test_what_was_missed_is_caught_up(tmp_path: Path) -> None:
    """Messages that came live are known when the storage brings them; those that were missed while
    we were away come from there, once, also over an end of the process.
    """
    api = Api()
    async with api.listening():
        rules = rules_of(tmp_path, live=LIVE, stored=STORED.format(url=api.url))
        settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False,
                            allowed_networks=LOOPBACK)  # fmt: skip
        messages = [uplink(number, age_s=100 - number) for number in range(9)]

        async def run(live: list[int], stored: int, wanted: int) -> None:
            pipeline = Funicular(settings)
            await pipeline.start()
            assert pipeline.door is not None
            try:
                async with httpx.AsyncClient() as client:
                    for number in live:
                        address = f"{pipeline.door.address}/in/acme/live"
                        answer = await client.post(address, json=messages[number])
                        assert answer.status_code == 202
                await until(lambda: len(out_of(tmp_path)) >= len(live))
                asked = len(api.asked)
                api.stored = [
                    {name: each[name] for name in each if name != "correlation_ids"}
                    for each in messages[:stored]
                ]
                await until(lambda: len(api.asked) >= asked + 2)
                await until(lambda: len(out_of(tmp_path)) >= wanted)
            finally:
                await pipeline.stop()

        await run([0, 1, 2], 3, 3)  # the storage has what came live
        await run([6, 7], 8, 8)  # 3, 4, 5 were missed
        await run([], 9, 9)
    out = out_of(tmp_path)
    assert sorted(each["f_cnt"] for each in out) == list(range(9))


@pytest.mark.process
async def test_a_killed_process_goes_on_from_its_cursor(tmp_path: Path) -> None:
    """`kill -9` in the middle, again and again: each reading is there once."""
    api = Api()
    async with api.listening(), aiohttp.ClientSession() as session:
        rules = rules_of(tmp_path, plain=READINGS.format(url=api.url))
        with Program(rules, tmp_path / "data") as program:
            for number in range(1, 13):
                api.readings.append({"n": number, "d": "dev1", "v": number / 2})
                if number % 4 == 0:
                    await program.ready(session, 60)
                    seen = len(api.asked)
                    await until(lambda: len(api.asked) > seen)  # noqa: B023 - awaited here
                    await asyncio.to_thread(program.kill)
                    program.start()
            await until(lambda: len(out_of(tmp_path)) >= 12)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(program.stop)
    assert sorted(each["telemetry"]["n"] for each in out_of(tmp_path)) == list(range(1, 13))


async def test_trouble_of_the_server_is_seen_and_ends(tmp_path: Path) -> None:
    """429, an answer that is none, one that is too long: the fault is shown, nothing is lost, and
    what follows is read. An address that is not allowed is not asked.
    """
    api = Api()
    async with api.listening():
        text = READINGS.format(url=api.url).replace(
            "interval: 1s", "interval: 1s\n  bytes_max: 2000"
        )
        rules = rules_of(tmp_path, plain=text)
        settings = Settings(rules=(rules,), data=tmp_path / "data", port=0, watch=False,
                            allowed_networks=LOOPBACK)  # fmt: skip
        api.trouble = 429
        pipeline = Funicular(settings)
        await pipeline.start()
        assert pipeline.door is not None
        door = pipeline.door

        def error() -> str:
            (status,) = door.integrations("acme")
            return status.last_error if status.state == "lost" else ""

        try:
            assert "429" in await until(error)
            api.trouble, api.body = 0, b'{"readings": "' + b"x" * 5_000 + b'"}'
            await until(lambda: "longer than 2000 bytes" in error())
            api.body = b'{"readings": ['
            await until(lambda: "not JSON" in error())
            api.readings = [{"n": 1, "d": "dev1"}, {"n": 2}, {"n": 3, "d": "dev1"}]
            api.body = None
            await until(lambda: len(out_of(tmp_path)) >= 2)
            (status,) = door.integrations("acme")
            assert (status.state, status.messages, status.refused) == ("connected", 3, 1)
        finally:
            await pipeline.stop()
        denied = Settings(rules=(rules,), data=tmp_path / "other", port=0, watch=False)
        asked = len(api.asked)
        pipeline = Funicular(denied)
        await pipeline.start()
        assert pipeline.door is not None
        door = pipeline.door
        try:
            assert "not allowed" in await until(error)
            assert len(api.asked) == asked
            assert "secret" not in str(door.integrations("acme"))
        finally:
            await pipeline.stop()
