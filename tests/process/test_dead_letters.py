"""`funicular dead-letters` beside the real program and on its log: mend the converter, replay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from pipeline import topics
from pipeline.stream.letters import LogLetters
from pipeline.stream.shelf import EmbeddedShelf
from pipeline.stream.sqlite import SqliteLog
from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
LETTERS = 10_000  # so many steps that Ctrl-C finds some of them still to do
ROOT = Path(__file__).parents[2]
BROKEN = "function decodeUplink(input) { throw new Error('not yet'); }\n"
MENDED = "function decodeUplink(input) { return {data: {n: input.bytes[0]}}; }\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    for name, text in {
        "funicular.yaml": "tenant: acme\n",
        "integrations/meters.yaml": (
            "dialect: sigfox\nauthentication: open\nconverter: acme/meter\n"
        ),
        "converters/acme/meter.yaml": "uplinkDecoder:\n  fileName: meter.js\n",
        "converters/acme/meter.js": BROKEN,
        "chains/archive.yaml": (
            "chain: archive\non: {messages: [uplink]}\nnodes:\n"
            "  - name: all\n    send: {to: archive}\n"
        ),
        "sinks/archive.yaml": f"transport: file\npath: {tmp_path}/archive.jsonl\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def program(rules: Path, tmp_path: Path) -> Iterator[Program]:
    with Program(rules, tmp_path / "data") as running:
        yield running


@pytest.fixture
async def failed(program: Program) -> AsyncIterator[aiohttp.ClientSession]:
    """Ten uplinks that the converter could not decode."""
    async with aiohttp.ClientSession() as session:
        await program.ready(session)
        for number in range(10):
            body = {"device": "A1", "time": str(1_700_000_000 + number), "data": f"{number:02x}",
                    "seqNumber": str(number), "ack": "false"}  # fmt: skip
            async with session.post(f"{program.url}/in/acme/meters", json=body) as answer:
                assert answer.status in (200, 204)
        await until(lambda: buried(program) == 10)
        yield session


def buried(program: Program) -> int:
    """Return how many dead letters there are, without a command's start for each look."""
    with SqliteLog.peek(program.data / "funicular.db") as log:
        return sum(1 for _ in log.scan(topics.DEAD_LETTER, limit=100))


def command(program: Program, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run `funicular dead-letters` on the program's log."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "dead-letters", *words,
         "--data", str(program.data), "--to", program.url],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "FUNICULAR_RULES": str(program.rules)},
    )  # fmt: skip


def said(ended: subprocess.CompletedProcess[bytes]) -> list[Any]:
    assert ended.returncode == 0, ended.stderr.decode()
    return [orjson.loads(line) for line in ended.stdout.splitlines()]


def letters(program: Program) -> list[Any]:
    return said(command(program, "list", "--fate", "all", "--json"))


def archived(program: Program) -> list[int]:
    path = program.data.parent / "archive.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [orjson.loads(line)["body"]["telemetry"]["n"] for line in lines]


async def until(true: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.1)


async def test_beside_the_running_program(
    program: Program, failed: aiohttp.ClientSession, rules: Path
) -> None:
    """While Funicular has the log: a dry run shows what fails again and, after mending, the
    results; the replay goes once, in order; a second one is refused; dropping leaves a trace.
    """
    dry = ("replay", "--stage", "convert", "--dry-run", "--json")
    before = said(await asyncio.to_thread(command, program, *dry))
    assert {one["reason"] for one in before} == {"script_threw"}
    (rules / "converters/acme/meter.js").write_text(MENDED)
    after = said(await asyncio.to_thread(command, program, *dry))
    assert [one["results"][0]["telemetry"] for one in after] == [{"n": n} for n in range(10)]
    assert archived(program) == []

    await until(lambda: "rules in force" in program.said())
    dropped = await asyncio.to_thread(command, program, "drop", "0-9")
    assert dropped.stdout == b"dropped 1\n", dropped.stderr
    replayed = await asyncio.to_thread(command, program, "replay", "--reason", "script_threw")
    assert replayed.stdout == b"replayed 9\n", replayed.stderr
    await until(lambda: archived(program) == list(range(9)))

    again = await asyncio.to_thread(command, program, "replay", "0-0", "0-9")
    assert (again.returncode, again.stdout) == (1, b"replayed 0, refused 2\n")
    fates = [one["fate"] for one in letters(program)]
    assert fates == ["replayed"] * 9 + ["dropped"]
    twice = await asyncio.to_thread(command, program, "replay", "0-9", "--again")
    assert twice.stdout == b"replayed 1\n"
    await until(lambda: archived(program) == [*range(9), 9])


async def test_on_the_log_of_a_stopped_program(
    program: Program, failed: aiohttp.ClientSession, rules: Path
) -> None:
    """Without a running Funicular the command writes the log itself; the next start works off
    what was replayed, once.
    """
    assert program.stop() == 0
    (rules / "converters/acme/meter.js").write_text(MENDED)

    assert command(program, "replay", "--all").stdout == b"replayed 10\n"
    assert command(program, "replay", "--all").stdout == b"replayed 0\n"
    program.start()
    await program.ready(failed)
    await until(lambda: archived(program) == list(range(10)))


async def test_ctrl_c_ends_between_two_steps(
    program: Program, failed: aiohttp.ClientSession
) -> None:
    """Ctrl-C ends a long replay after the step under way and says how far it came: what it says
    is what the log has, and the same command goes on with the rest.
    """
    assert program.stop() == 0
    with SqliteLog.open(program.data / "funicular.db") as log:
        (first, *_) = log.scan(topics.DEAD_LETTER)
        more = [msg_of(first) for _ in range(LETTERS)]
        log.append_blocking(more)
    running = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-m", "pipeline.cli", "dead-letters", "replay", "--all", "--json",
         "--data", str(program.data)],
        bufsize=0,  # `communicate` does not see what a buffer has read beyond the first line
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert b"the same command goes on" in err
    steps = [orjson.loads(line) for line in out.splitlines()]
    done = 100 + sum(len(step["done"]) for step in steps)
    assert done < LETTERS + 10
    handled = sum(one["fate"] == "replayed" for one in letters(program))
    assert handled == done
    rest = command(program, "replay", "--all")
    assert rest.stdout == f"replayed {LETTERS + 10 - done}\n".encode()
    shelf = EmbeddedShelf(program.data / "funicular.db")
    sent = [one for one in shelf.records(topics.UPLINK_RECEIVED) if "replay" in one.headers]
    assert len(sent) == LETTERS + 10, "each once"
    assert LogLetters(shelf, lambda: 0).get("0-0") is not None


def msg_of(record: Any) -> Any:
    """Return a dead letter once more, as another one."""
    from pipeline.model.record import Outgoing

    return Outgoing(record.topic, record.key, record.value, dict(record.headers))
