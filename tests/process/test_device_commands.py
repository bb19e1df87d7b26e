"""`funicular downlinks` and `devices` at a running program: what they say and change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    rules = tmp_path / "rules"
    (rules / "integrations").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/meters.yaml").write_text(
        "dialect: sigfox\nauthentication: open\nqueue_max: 2\ndevice_type: meter\n"
    )
    with Program(rules, tmp_path / "data") as running:
        yield running


def command(program: Program, *words: str) -> tuple[int, list[Any], str]:
    """Run a command; return its exit code, the JSON lines that it printed, and stderr."""
    env = {**os.environ, "FUNICULAR_RULES": str(program.rules), "FUNICULAR_ADDRESS": program.url}
    if words[:2] == ("devices", "list"):
        words = (*words, "--data", str(program.data))
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env=env,
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith(b"{")]
    return ended.returncode, list(map(orjson.loads, lines)), ended.stderr.decode()


async def heard(program: Program) -> None:
    """Let the program hear one device."""
    async with aiohttp.ClientSession() as session:
        await program.ready(session)
        body = {"device": "A1", "time": "1700000000", "data": "00", "ack": "false"}
        async with session.post(f"{program.url}/in/acme/meters", json=body) as answer:
            assert answer.status == 204


async def test_downlinks(program: Program) -> None:
    """Ask for one, see it, see that the queue is full, take back one and all."""
    await heard(program)
    send = ("downlinks", "send", "A1", "--payload", "0001020304050607", "--queue", "push", "--json")
    code, (first,), _ = command(program, *send, "--idempotency-key", "k")
    assert (code, first["state"], first.get("queue", "last")) == (0, "queued", "last")
    assert command(program, *send, "--idempotency-key", "k")[1] == [first]
    assert command(program, *send, "--priority", "high")[0] == 0
    code, _, said = command(program, *send)
    assert (code, "queue_max" in said) == (1, True)

    _, listed, _ = command(program, "downlinks", "list", "A1", "--json")
    assert [one["state"] for one in listed] == ["queued", "queued", "failed"]
    assert listed[1] == first, "the higher priority leaves first"
    only = command(program, "downlinks", "list", "A1", "--state", "failed", "--json")[1]
    assert only == listed[2:]
    assert command(program, "downlinks", "show", "A1", first["id"])[1] == [first]

    _, (cancelled,), _ = command(program, "downlinks", "cancel", "A1", first["id"], "--json")
    assert cancelled == {"cancelled": [first["id"]]}
    code, _, said = command(program, "downlinks", "cancel", "A1", first["id"])
    assert (code, "only a waiting one" in said) == (1, True)
    _, (cancelled,), _ = command(program, "downlinks", "cancel", "A1", "--all", "--json")
    assert cancelled["cancelled"] == [listed[0]["id"]]
    assert command(program, "downlinks", "cancel", "A1")[0] == 2


async def test_devices(program: Program) -> None:
    """Which there are, what is known of one, forget it."""
    await heard(program)

    _, (listed,), _ = command(program, "devices", "list", "--json")
    assert (listed["tenant"], listed["device"], listed["type"]) == ("acme", "A1", "meter")
    assert "link" not in listed
    _, (shown,), _ = command(program, "devices", "show", "A1")
    assert shown["integration"] == "meters"
    assert command(program, "devices", "forget", "A1", "--yes")[0] == 0
    code, _, said = command(program, "devices", "show", "A1")
    assert (code, "no device `A1`" in said) == (1, True)
    assert command(program, "devices", "list", "--json")[1] == []


async def test_nobody_there(program: Program) -> None:
    """Where nobody listens, or the tenant is not said, the command says what to do: exit code 2."""
    await heard(program)
    assert program.stop() == 0
    code, _, said = command(program, "downlinks", "list", "A1")
    assert (code, "funicular run" in said) == (2, True)
    code, _, said = command(program, "downlinks", "list", "A1", "--rules", "nowhere")
    assert (code, "--tenant" in said) == (2, True)
