"""The real program, killed in the middle of its work again and again; all is accounted for."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import aiohttp
import pytest

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

KILLS = int(os.environ.get("FUNICULAR_TEST_KILLS", "20"))
SENDERS = 3  # a kind of integration


async def torture(program: Program, servers: Servers, ledger: Ledger, kills: int) -> None:
    """Run the load, kill and restart, then let everything settle."""
    chance = random.Random(20)
    enough = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        await program.ready(session)
        load = [
            asyncio.create_task(send_all(kind, program, servers.url, ledger, enough))
            for kind in KINDS
            for _ in range(SENDERS)
        ]
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.1, 0.8))
            await asyncio.to_thread(program.kill)
            program.start()
            await program.ready(session)
        await asyncio.sleep(0.5)
        enough.set()
        await asyncio.gather(*load)
        await settled([program], session)
    assert await asyncio.to_thread(program.stop) == 0, program.said()


def records(log: Path, topic: str) -> list[tuple[dict[str, str], bytes]]:
    with SqliteLog.peek(log) as view:
        found = view.scan(topic, limit=10_000_000)
    return [(record.headers, record.value or b"") for record in found]


@pytest.mark.process
@pytest.mark.timeout(280)
async def test_sigkill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed 20 times under load of every dialect: what was answered 2xx is there exactly once,
    each downlink has one legal life, and no two uplinks share one that was not flagged.
    """
    ledger = Ledger()
    archive = tmp_path / "archive.jsonl"
    async with Servers() as servers:
        env = {"LEDGER_SERVERS": servers.url, "LEDGER_ARCHIVE": str(archive)}
        with Program(write_rules(tmp_path / "rules"), tmp_path / "data", env) as program:
            await torture(program, servers, ledger, KILLS)
        log = tmp_path / "data" / "funicular.db"

        check_uplinks(lambda topic: records(log, topic), ledger, servers, archive)
        check_downlinks(lambda topic: records(log, topic), ledger, servers)

    assert len(ledger.accepted) > 50 * KILLS / 20, "the load was real"
    assert ledger.unknown, "the kills hit requests in flight"
