"""A converter that is edited under the running program."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


def script(version: int) -> str:
    return (
        "function Decoder(payload, metadata) { return {deviceName: 'd', deviceType: 't',"
        f" telemetry: {{n: decodeToJson(payload).n, version: {version}}}}} }}\n"
    )


FILES = {
    "funicular.yaml": "tenant: acme\n",
    "integrations/in.yaml": (
        "dialect: http\nauthentication: open\nsynchronous: false\nconverter: acme/x\n"
    ),
    "converters/acme/x.yaml": "contract: thingsboard\nuplinkDecoder:\n  fileName: x.js\n",
    "converters/acme/x.js": script(1),
    "chains/archive.yaml": (
        "chain: archive\non: {messages: [uplink]}\nnodes:\n  - name: all\n    send: {to: archive}\n"
    ),
}


def archived(path: Path) -> list[tuple[int, int]]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [orjson.loads(line)["body"]["telemetry"] for line in lines]
    return [(each["n"], each["version"]) for each in found]


async def until(true: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.05)


async def test_edited_broken_and_mended(tmp_path: Path) -> None:
    """An edit takes effect without a restart; one that does not compile is refused, shown with its
    place, and the version before it goes on; every uplink is decoded once, in order.
    """
    rules, archive = tmp_path / "rules", tmp_path / "archive.jsonl"
    for name, text in {
        **FILES,
        "sinks/archive.yaml": f"transport: file\npath: {archive}\n",
    }.items():
        (rules / name).parent.mkdir(parents=True, exist_ok=True)
        (rules / name).write_text(text)
    converter = rules / "converters/acme/x.js"
    sent = 0
    with Program(rules, tmp_path / "data") as program:
        async with aiohttp.ClientSession() as session:
            await program.ready(session)

            async def send() -> None:
                nonlocal sent
                sent += 1
                url = f"{program.url}/in/acme/in"
                async with session.post(url, json={"n": sent}) as answer:
                    assert answer.status == 202

            async def until_version(version: int) -> None:
                deadline = time.monotonic() + 20
                while not archived(archive) or archived(archive)[-1][1] != version:
                    assert time.monotonic() < deadline
                    await send()
                    await asyncio.sleep(0.1)

            await until_version(1)
            converter.write_text("function Decoder(payload, metadata) { return = }\n")
            await until(lambda: "edited rules are refused" in program.said())
            assert "converters/acme/x.js:1:" in program.said()
            before = sent
            for _ in range(5):
                await send()
            await until(lambda: len(archived(archive)) == before + 5)
            assert {version for _, version in archived(archive)} == {1}
            converter.write_text(script(2))
            await until_version(2)
            await until(lambda: len(archived(archive)) == sent)
    found = archived(archive)
    assert [n for n, _ in found] == list(range(1, sent + 1))
    versions = [version for _, version in found]
    assert versions == sorted(versions), "each of the old converter, then each of the new"
