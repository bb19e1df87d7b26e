"""The real program on a real broker: workers killed in the middle of their work, all accounted for.

One ingest worker, two workers that share the stages, one for the sinks. `FUNICULAR_TEST_KILLS`
says how often one of them is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from tests.kafka.brokers import Brokers
from tests.kafka.program_work import committed, quiet
from tests.process.ledger import (
    KINDS,
    Ledger,
    check_downlinks,
    check_uplinks,
    send_all,
)
from tests.process.ledger_rules import write_rules
from tests.process.program import Program, Servers

KILLS = int(os.environ.get("FUNICULAR_TEST_KILLS", "8"))
PARTITIONS = 6
STAGES = ("worker", "convert", "route", "downlink")


@pytest.mark.timeout(400)
async def test_workers_killed_lose_and_double_nothing(
    kafka: Brokers, prefix: str, tmp_path: Path
) -> None:
    """Whichever worker is killed under load: what was answered 2xx is there exactly once up to
    the sinks, each downlink has one legal life, and no two uplinks share an unflagged one.
    """
    ledger = Ledger()
    archive = tmp_path / "archive.jsonl"
    rules = write_rules(tmp_path / "rules")
    async with Servers() as servers:
        url = f"kafka://{kafka.bootstrap}?prefix={prefix}&partitions={PARTITIONS}&replication=1"
        env = {
            "LEDGER_SERVERS": servers.url,
            "LEDGER_ARCHIVE": str(archive),
            "FUNICULAR_LOG": url,
        }
        made = await asyncio.to_thread(
            CliRunner().invoke, main, ["topics", "create", "-r", str(rules)], env=env
        )
        assert made.exit_code == 0, made.output
        with ExitStack() as stack:
            door, *others = [
                stack.enter_context(Program(rules, tmp_path / name, env, command))
                for name, command in (
                    ("door", ("worker", "ingest")),
                    ("one", STAGES),
                    ("two", STAGES),
                    ("out", ("worker", "sink")),
                )
            ]
            await torture(door, others, servers, ledger)
        read = lambda topic: committed(kafka.bootstrap, prefix + topic)  # noqa: E731
        check_uplinks(read, ledger, servers, archive)
        check_downlinks(read, ledger, servers)

    assert len(ledger.accepted) > 20 * KILLS, "the load was real"
    assert ledger.unknown, "the kills hit requests in flight"


async def torture(door: Program, others: list[Program], servers: Servers, ledger: Ledger) -> None:
    """Run the load, kill and restart one worker after the other, then let everything settle."""
    chance = random.Random(7)
    enough = asyncio.Event()
    programs = [door, *others]
    async with aiohttp.ClientSession() as session:
        for program in programs:
            await program.ready(session, 60)
        load = [
            asyncio.create_task(send_all(kind, door, servers.url, ledger, enough))
            for kind in KINDS
            for _ in range(2)
        ]
        for kill in range(KILLS):
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            victim = programs[kill % len(programs)]
            await asyncio.to_thread(victim.kill)
            victim.start()
            await victim.ready(session, 60)
        await asyncio.sleep(1)
        enough.set()
        await asyncio.gather(*load)
        await quiet(programs, session)
    for program in programs:
        assert await asyncio.to_thread(program.stop) == 0, program.said()
