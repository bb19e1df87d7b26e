"""The real program where two rooms meet: what one leaves behind when the other has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.process.ledger_rules import write_rules
from tests.process.program import Program, Servers

pytestmark = [pytest.mark.process, pytest.mark.timeout(120), pytest.mark.xdist_group("seams")]

PLATFORM = """
dialect: http
authentication: open
options: {device_field: device, downlink_url: "${env:PLATFORM}/down/{device_id}"}
"""


async def until(session: aiohttp.ClientSession, url: str, states: list[str]) -> list[Any]:
    """Wait until the device's downlinks have these states, and return them."""
    async with asyncio.timeout(20):
        while True:
            async with session.get(url) as answer:
                found: list[Any] = (await answer.json())["downlinks"]
            if sorted(downlink["state"] for downlink in found) == sorted(states):
                return found
            await asyncio.sleep(0.05)


async def test_integration_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """Downlinks that wait when their integration leaves the rules are kept, seen and told of, those
    that are asked for meanwhile fail with the reason, and the kept ones go out, in order, when it
    is back.
    """
    folder = write_rules(tmp_path / "rules")
    platform = folder / "integrations/platform.yaml"
    platform.write_text(PLATFORM.lstrip())
    async with Servers() as servers, aiohttp.ClientSession() as session:
        env = {"LEDGER_SERVERS": servers.url, "LEDGER_ARCHIVE": str(tmp_path / "archive.jsonl")}
        program = Program(folder, tmp_path / "data", env | {"PLATFORM": "http://127.0.0.1:9"})
        url = f"{program.url}/api/v1/tenants/t/devices/a%2F%231/downlinks"
        with program:
            await program.ready(session)
            for n in (1, 2):
                wanted = {"fields": {"n": n}, "integration": "platform"}
                async with session.post(url, json=wanted) as asked:
                    assert asked.status == 202, await asked.text()
            await until(session, url, ["sending", "queued"])
            assert program.stop() == 0

        platform.unlink()
        with program:
            await program.ready(session)
            wanted = {"fields": {"n": 3}, "integration": "platform"}
            async with session.post(url, json=wanted) as asked:
                assert (asked.status, (await asked.json())["reason"]) == (422, "no_integration")
            await until(session, url, ["sending", "queued", "failed"])
            assert "delivery.t.downlink-platform" in program.said()
            assert program.stop() == 0

        platform.write_text(PLATFORM.lstrip())
        program.env["PLATFORM"] = servers.url
        with program:
            await program.ready(session)
            await until(session, url, ["sent", "sent", "failed"])
            assert program.stop() == 0
    assert [orjson.loads(body)["fields"]["n"] for body in servers.platform] == [1, 2]
