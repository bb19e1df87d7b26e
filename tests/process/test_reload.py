"""The real program whose rules are edited under load: nothing lost, doubled, or half new."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import aiohttp
import msgspec
import pytest

from pipeline import topics
from pipeline.model.event import DeviceEvent, DeviceMessage
from pipeline.model.record import RULES_VERSION
from pipeline.rulebook.folder import read_folder
from pipeline.stream.sqlite import SqliteLog
from tests.process.ledger import (
    KINDS,
    Ledger,
    check_downlinks,
    check_uplinks,
    send_all,
    settled,
)
from tests.process.ledger_rules import write_rules
from tests.process.program import Program, Servers

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


def records(log: Path, topic: str) -> list[tuple[dict[str, str], bytes]]:
    with SqliteLog.peek(log) as view:
        return [(each.headers, each.value or b"") for each in view.scan(topic, limit=1_000_000)]


async def until_metric(program: Program, session: aiohttp.ClientSession, line: str) -> None:
    """Wait until `/metrics` has a line."""
    async with asyncio.timeout(20):
        while True:
            async with session.get(f"{program.url}/metrics") as answer:
                if line in (await answer.text()).splitlines():
                    return
            await asyncio.sleep(0.1)


def edit(folder: Path) -> str:
    """Have converters and the chain say that they are new; return the new version."""
    for name, old, new in (
        ("converters/t/ledger.js", "{data: {n:", "{data: {edited: true, n:"),
        ("converters/t/http.js", "telemetry: {n:", "telemetry: {edited: true, n:"),
        ("chains/ledger.yaml", "values: {last:", "values: {edited: true, last:"),
    ):
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    return read_folder(folder).version


async def test_rules_edited_under_load(tmp_path: Path) -> None:
    """An edit comes into force between two batches: all that was accepted is there once, each
    device's messages are of the old version and then of the new one, and carry its number. A
    faulty edit after it is refused and shown; the program stays ready and works on.
    """
    ledger = Ledger()
    archive = tmp_path / "archive.jsonl"
    folder = write_rules(tmp_path / "rules")
    before = read_folder(folder).version
    async with Servers() as servers:
        env = {"LEDGER_SERVERS": servers.url, "LEDGER_ARCHIVE": str(archive)}
        with Program(folder, tmp_path / "data", env) as program:
            async with aiohttp.ClientSession() as session:
                await program.ready(session)
                enough = asyncio.Event()
                load = [
                    asyncio.create_task(send_all(kind, program, servers.url, ledger, enough))
                    for kind in KINDS
                ]
                await asyncio.sleep(1)
                after = edit(folder)
                info = f'funicular_rules_info{{tenant="t",version="{after}"}} 1'
                await until_metric(program, session, info)
                (folder / "chains/ledger.yaml").write_text("chain: ledger\nnodez: []\nnodes: 1\n")
                await until_metric(program, session, "funicular_rules_faults 2")
                await until_metric(program, session, info)
                async with session.get(f"{program.url}/readyz") as answer:
                    assert answer.status == 200
                sent = ledger.next_n
                await asyncio.sleep(0.5)
                enough.set()
                await asyncio.gather(*load)
                await settled([program], session)
            assert await asyncio.to_thread(program.stop) == 0, program.said()
            assert program.said().count("edited rules are refused") == 1
        log = tmp_path / "data" / "funicular.db"
        check_uplinks(lambda topic: records(log, topic), ledger, servers, archive)
        check_downlinks(lambda topic: records(log, topic), ledger, servers)

    assert not ledger.unknown
    assert ledger.next_n > sent, "the load went on with the faulty edit on the disk"
    messages = [
        (headers[RULES_VERSION], event)
        for headers, value in records(log, topics.DEVICE_EVENTS)
        if isinstance(event := msgspec.json.decode(value, type=DeviceEvent), DeviceMessage)
    ]
    assert {version for version, _ in messages} == {before, after}
    versions = [version for version, _ in messages]
    assert [version for version, _ in itertools.groupby(versions)] == [before, after]
    assert all(("edited" in event.telemetry) == (version == after) for version, event in messages)


async def test_new_destination_under_way(tmp_path: Path) -> None:
    """A sink that an edit adds gets what the edited chain sends there, without a restart."""
    folder = write_rules(tmp_path / "rules")
    chain = folder / "chains/ledger.yaml"
    archive = tmp_path / "archive.jsonl"
    ledger = Ledger()
    async with Servers() as servers, aiohttp.ClientSession() as session:
        env = {"LEDGER_SERVERS": servers.url, "LEDGER_ARCHIVE": str(archive)}
        with Program(folder, tmp_path / "data", env) as program:
            await program.ready(session)
            extra = tmp_path / "extra.jsonl"
            (folder / "sinks/extra.yaml").write_text(f"transport: file\npath: {extra}\n")
            chain.write_text(chain.read_text().replace("send: {to: archive,", "send: {to: extra,"))
            version = read_folder(folder).version
            await until_metric(
                program, session, f'funicular_rules_info{{tenant="t",version="{version}"}} 1'
            )
            enough = asyncio.Event()
            load = asyncio.create_task(send_all("ttn", program, servers.url, ledger, enough))
            await asyncio.sleep(0.3)
            enough.set()
            await load
            await settled([program], session)
            assert program.stop() == 0
    assert len(extra.read_bytes().splitlines()) == ledger.next_n > 0
    assert not archive.exists() or not archive.read_bytes()


async def test_not_watched(tmp_path: Path) -> None:
    """With `--no-watch` an edit waits for the next start."""
    folder = write_rules(tmp_path / "rules")
    before = read_folder(folder).version
    env = {"LEDGER_SERVERS": "http://127.0.0.1:9", "LEDGER_ARCHIVE": str(tmp_path / "archive")}
    async with aiohttp.ClientSession() as session:
        with Program(folder, tmp_path / "data", env, ("run", "--no-watch")) as program:
            await program.ready(session)
            after = edit(folder)
            await asyncio.sleep(4)
            assert program.stop() == 0
            assert after not in program.said()
            program.start()
            await program.ready(session)
            assert program.stop() == 0
            assert before in program.said()
            assert after in program.said()
