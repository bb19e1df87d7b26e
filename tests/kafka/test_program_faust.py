"""The real stages as a Faust app, started by Faust's own command, between doors and sinks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.model.downlink import Downlink, State
from pipeline.topics import DOWNLINK_STATUS
from tests.kafka.brokers import Brokers
from tests.kafka.program_work import committed
from tests.process.ledger import Ledger, Read, check_downlinks, check_uplinks, send_all
from tests.process.ledger_rules import write_rules
from tests.process.program import Program, Servers

UPLINKS = 60
KINDS = ("ttn", "tts")  # Faust is for links where nobody waits for the answer


@contextmanager
def faust_worker(folder: Path, env: dict[str, str]) -> Iterator[Path]:
    """Run the app as its users do; yield its log. It ends in good order."""
    log = folder / "faust.log"
    command = [sys.executable, "-m", "faust", "-A", "pipeline.wiring:faust_app"]
    command += ["--datadir", str(folder / "faust"), "worker", "--without-web", "-l", "warn"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out)
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(300)
async def test_the_stages_as_a_faust_app(kafka: Brokers, prefix: str, tmp_path: Path) -> None:
    """Without faults each uplink goes through codec and chain to both sinks once, its downlink to
    its network server, and the attribute that the chain sets is in the state.
    """
    ledger = Ledger()
    archive = tmp_path / "archive.jsonl"
    rules = write_rules(tmp_path / "rules")
    for name in ("sigfox", "plain"):
        (rules / f"integrations/{name}.yaml").unlink()

    def read(topic: str) -> list[tuple[dict[str, str], bytes]]:
        return committed(kafka.bootstrap, prefix + topic)

    async with Servers() as servers:
        place = f"{kafka.bootstrap}?prefix={prefix}&partitions=2&replication=1"
        env = {
            "LEDGER_SERVERS": servers.url,
            "LEDGER_ARCHIVE": str(archive),
            "FUNICULAR_LOG": f"kafka://{place}",
            "FUNICULAR_RULES": str(rules),
        }
        made = await asyncio.to_thread(
            CliRunner().invoke, main, ["topics", "create", "-r", str(rules)], env=env
        )
        assert made.exit_code == 0, made.output
        with ExitStack() as stack:
            log = stack.enter_context(
                faust_worker(tmp_path, env | {"FUNICULAR_LOG": f"faust://{place}"})
            )
            edges = Program(rules, tmp_path / "edges", env, ("worker", "ingest", "sink"))
            stack.enter_context(edges)
            await work(edges, servers, ledger, log)
            await asyncio.to_thread(until_reported, read)

        check_uplinks(read, ledger, servers, archive)
        check_downlinks(read, ledger, servers)
        states = [value for _, value in read("device.state")]
        assert any(b'"last"' in value for value in states)


async def work(edges: Program, servers: Servers, ledger: Ledger, log: Path) -> None:
    """Send, and wait until all of it has arrived."""
    enough = asyncio.Event()
    async with aiohttp.ClientSession() as session, asyncio.timeout(200):
        await edges.ready(session, 60)
        load = [
            asyncio.create_task(send_all(kind, edges, servers.url, ledger, enough))
            for kind in KINDS
        ]
        await until(lambda: len(ledger.accepted) >= UPLINKS, log)
        enough.set()
        await asyncio.gather(*load)
        asked = sum(n % 5 == 0 for n in ledger.accepted)
        await until(lambda: ledger.accepted <= servers.application.keys(), log)
        await until(lambda: sum(len(servers.downlinks[kind]) for kind in KINDS) >= asked, log)


def until_reported(read: Read) -> None:
    """Wait until the stages have heard what became of all downlinks that left."""
    deadline = time.monotonic() + 60
    waiting = True
    while waiting:
        assert time.monotonic() < deadline, "a downlink's outcome was not heard"
        last: dict[str, Downlink] = {}
        for _, value in read(DOWNLINK_STATUS):
            downlink = msgspec.json.decode(value, type=Downlink)
            last[downlink.id] = downlink
        waiting = any(each.state is State.SENDING for each in last.values())


async def until(reached: Callable[[], bool], log: Path) -> None:
    """Wait for it; end at once where the app says that it broke."""
    while not reached():
        said = await asyncio.to_thread(log.read_text)
        assert "Traceback" not in said, said[-4_000:]
        await asyncio.sleep(0.2)
