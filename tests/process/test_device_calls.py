"""The real program lets applications call devices: over HTTP, and by the command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]
DEVICE = "/api/v1/tenants/t/devices/valve"
MATCH = {"number_field": "number", "reply": "telemetry.number == metadata.call.number"}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    rules = tmp_path / "rules"
    (rules / "integrations").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: t\n")
    (rules / "integrations/plain.yaml").write_text(
        "dialect: http\nsynchronous: true\nauthentication: open\noptions: {device_field: device}\n"
    )
    with Program(rules, tmp_path / "data") as running:
        yield running


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, for 20 s at most, until it is so."""
    async with asyncio.timeout(20):
        while True:
            if await true():
                return
            await asyncio.sleep(0.05)


class Valve:
    """A device that speaks plain HTTP, and an application that calls it."""

    def __init__(self, program: Program, session: aiohttp.ClientSession) -> None:
        self.program, self.session = program, session

    async def says(self, **telemetry: Any) -> list[dict[str, Any]]:
        """Post an uplink; return the fields of the downlinks in its answer."""
        address = f"{self.program.url}/in/t/plain"
        async with self.session.post(address, json={"device": "valve", **telemetry}) as answer:
            if answer.status == 204:
                return []
            assert answer.status == 200, await answer.text()
            return [one["fields"] for one in (await answer.json())["downlinks"]]

    async def hears(self) -> dict[str, Any]:
        """Post uplinks until one is answered with a downlink."""
        found: list[dict[str, Any]] = []

        async def carried() -> bool:
            found.extend(await self.says(number=0))
            return bool(found)

        await until(carried)
        return found[0]

    async def call(self, key: str = "", **asked: Any) -> tuple[int, Any]:
        """Call the device; return the answer's status and body."""
        headers = {"idempotency-key": key} if key else {}
        address = self.program.url + DEVICE + "/calls"
        async with self.session.post(address, json=asked, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        async with self.session.get(self.program.url + DEVICE + path) as answer:
            return await answer.json()


@pytest.fixture
async def valve(program: Program) -> AsyncIterator[Valve]:
    async with aiohttp.ClientSession() as session:
        await program.ready(session)
        valve = Valve(program, session)
        await valve.says(number=0)
        yield valve


async def test_reply_reaches_who_asked(valve: Valve) -> None:
    """Two requests with one key wait for one downlink; the uplink with its number is the answer to
    both, and to a third one that comes later.
    """
    asked = {"fields": {"ask": "position"}, "timeout": "30s", **MATCH}
    first, second = (asyncio.create_task(valve.call("k1", **asked)) for _ in range(2))

    fields = await valve.hears()
    await valve.says(number=fields["number"], position=70)
    answers = await asyncio.gather(first, second)
    third = await valve.call("k1", **asked)

    assert fields == {"ask": "position", "number": 1}
    assert answers[0] == answers[1] == third
    status, said = third
    assert (status, said["state"]) == (200, "replied")
    assert said["reply"]["telemetry"] == {"device": "valve", "number": 1, "position": 70}
    assert len((await valve.get("/downlinks"))["downlinks"]) == 1


async def test_call_outlives_a_kill(valve: Valve) -> None:
    """A persistent call goes on when its time is over and the program was killed; its reply can be
    asked for.
    """
    status, waiting = await valve.call(fields={"ask": 1}, timeout="1s", persistent=True)
    valve.program.kill()
    valve.program.start()
    await valve.program.ready(valve.session)

    carried = await valve.says(number=0)
    await valve.says(position=70)

    assert (status, waiting["state"], carried) == (202, "waiting", [{"ask": 1}])

    async def ended() -> bool:
        return bool((await valve.get(path))["state"] != "waiting")

    path = f"/calls/{waiting['id']}"
    await until(ended)
    assert (await valve.get(path))["reply"]["telemetry"]["position"] == 70


async def test_no_reply_in_time(valve: Valve) -> None:
    """The answer is 504 and the downlink expires with the call."""
    status, said = await valve.call(fields={"ask": 1}, timeout="200ms")

    assert (status, said["error"]["code"]) == (504, "timeout")

    async def expired() -> bool:
        downlink = await valve.get(f"/downlinks/{said['error']['id']}")
        return bool(downlink["state"] == "expired")

    await until(expired)
    assert await valve.says(number=0) == []


async def test_command_calls(valve: Valve) -> None:
    """`downlinks call` prints the reply, `downlinks calls` what became of it."""
    where = ("--to", valve.program.url, "--tenant", "t")

    async def funicular(*words: str) -> tuple[int | None, str]:
        command = (sys.executable, "-m", "pipeline.cli", "downlinks", *words, *where, "--json")
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT,
                                                       stdout=asyncio.subprocess.PIPE)  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    calling = asyncio.create_task(
        funicular("call", "valve", "--fields", '{"ask": 1}', "--timeout", "30s")
    )
    await valve.hears()
    await valve.says(position=70)
    code, out = await calling
    _, listed = await funicular("calls", "valve")
    late, _ = await funicular("call", "valve", "--fields", '{"ask": 1}', "--timeout", "200ms")

    assert (code, orjson.loads(out)["reply"]["telemetry"]["position"]) == (0, 70)
    assert orjson.loads(listed)["state"] == "replied"
    assert late == 1
