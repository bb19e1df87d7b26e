"""The real program and bad input: a clear answer, nothing lost, and the next message is fine."""

from __future__ import annotations

import asyncio
import gzip
import io
import resource
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest
import pytest_asyncio

from pipeline import topics
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.downlink import Downlink
from pipeline.stream.sqlite import SqliteLog
from tests.process.ledger_rules import write_rules
from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120), pytest.mark.xdist_group("bad_input")]
KEY = {"X-Key": "secret"}
MIB = 1024 * 1024

CRUEL = {
    "converters/t/cruel.yaml": "uplinkDecoder: {fileName: cruel.js}\n",
    "converters/t/cruel.js": """
function decodeUplink(input) {
  switch (input.bytes[0]) {
    case 1:
      throw new Error("I refuse");
    case 2: for (;;) {}
    case 3: var all = []; for (;;) all.push("x".repeat(4000000));
    case 4: return 42;
    case 5: return /^(a+)+$/.test("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!");
    default: return {data: {n: input.bytes[0]}};
  }
}
""",
    "integrations/cruel.yaml": """
dialect: ttn_v2
authentication: {header: X-Key, value: secret}
converter: t/cruel
device_type: cruel
""",
    "chains/cruel.yaml": """
chain: cruel
on: {messages: [uplink], device_type: cruel}
nodes:
  - name: fails
    filter: telemetry.n / (telemetry.n - 8) > 100
    otherwise: stop
""",
    "chains/caught.yaml": """
chain: caught
on: {messages: [uplink], device_type: cruel}
nodes:
  - name: fails
    filter: telemetry.absent > 1
    on_failure: note
  - name: end
    log: {message: never here}
    then: stop
  - name: note
    set_attributes: {scope: server, values: {failed: true}}
""",
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_rules(tmp_path_factory.mktemp("rules"))
    for name, text in CRUEL.items():
        (folder / name).write_text(text.lstrip("\n"))
    chain = folder / "chains/ledger.yaml"
    chain.write_text(chain.read_text().replace("[uplink]}", "[uplink], integration: [ttn, plain]}"))
    return folder


@pytest.fixture(scope="module")
def program(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    data = tmp_path_factory.mktemp("data")
    env = {
        "LEDGER_SERVERS": "http://127.0.0.1:9",
        "LEDGER_ARCHIVE": str(data / "archive.jsonl"),
    }
    with Program(rules, data, env) as running:
        yield running


@pytest_asyncio.fixture
async def session(program: Program) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        await program.ready(client)
        yield client


def ttn(device: str, payload: bytes, **more: Any) -> dict[str, Any]:
    return {
        "app_id": "app",
        "dev_id": device,
        "port": 1,
        "counter": 1,
        "payload_raw": b64encode(payload).decode(),
        "metadata": {"time": "2026-11-21T10:00:00Z"},
        **more,
    }


def read(program: Program, topic: str) -> list[bytes]:
    with SqliteLog.peek(program.data / "funicular.db") as view:
        return [record.value or b"" for record in view.scan(topic, limit=100_000)]


async def letters(program: Program, count: int, **wanted: str) -> list[DeadLetter]:
    """Wait for dead letters that have these fields, and return them."""
    deadline = time.monotonic() + 20
    while True:
        found = [
            letter
            for value in read(program, topics.DEAD_LETTER)
            if all(
                getattr(letter := msgspec.json.decode(value, type=DeadLetter), name) == said
                for name, said in wanted.items()
            )
        ]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count, found
            return found
        await asyncio.sleep(0.05)


async def test_wrong_key_and_no_integration_look_the_same(
    program: Program, session: aiohttp.ClientSession
) -> None:
    """Who has no key cannot tell whether an integration exists."""
    answers = []
    for path, headers in (("ttn", {"X-Key": "wrong"}), ("ttn", {}), ("nothing", KEY)):
        async with session.post(
            f"{program.url}/in/t/{path}", json=ttn("d", b"1234"), headers=headers
        ) as answer:
            answers.append((answer.status, await answer.read()))

    assert answers[0][0] == 401
    assert len(set(answers)) == 1


async def test_device_that_cannot_be_found_is_answered_empty(
    program: Program, session: aiohttp.ClientSession
) -> None:
    """On a synchronous integration: the empty answer at once, and a dead letter with the bytes."""
    body = orjson.dumps({"n": 1})
    began = time.monotonic()
    async with session.post(
        f"{program.url}/in/t/plain",
        data=body,
        headers={
            "Authorization": "Basic " + b64encode(b"u:secret").decode(),
            "Content-Type": "application/json",
        },
    ) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    assert time.monotonic() - began < 3, "at once, not at the deadline of 4 s"

    (letter,) = await letters(program, 1, stage="convert", value=body)
    assert "deviceName" in letter.message


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("not JSON", b"{nonsense", "JSON"),
        ("not an object", b"[1, 2]", "object"),
        ("no device", orjson.dumps({"app_id": "a", "payload_raw": "AA=="}), "dev_id"),
        ("bad base64", orjson.dumps(ttn("d", b"") | {"payload_raw": "A!"}), "payload_raw"),
        ("NaN", b'{"app_id": "a", "dev_id": "d", "metadata": {"airtime": NaN}}', "JSON"),
        ("bad UTF-8", b'{"app_id": "a", "dev_id": "\xff"}', "UTF-8"),
        ("too deep", b'{"app_id": "a", "dev_id": "d", "x": ' + b"[" * 100_000, ""),
        ("wrong type", orjson.dumps(ttn("d", b"") | {"port": "one"}), "port"),
    ],
)
async def test_not_an_uplink_is_refused(
    program: Program, session: aiohttp.ClientSession, name: str, body: bytes, said: str
) -> None:
    """What cannot be an uplink gets a 400 that says what and where; nothing is written."""
    before = len(read(program, topics.UPLINK_RECEIVED))
    async with session.post(f"{program.url}/in/t/ttn", data=body, headers=KEY) as answer:
        assert answer.status == 400
        assert said.lower() in (await answer.text()).lower()

    assert len(read(program, topics.UPLINK_RECEIVED)) == before


async def test_large_bodies_are_refused(program: Program, session: aiohttp.ClientSession) -> None:
    """Over the limit, without an end, or a gzip bomb: 413, and memory does not grow with it."""
    assert program.process is not None
    status = Path(f"/proc/{program.process.pid}/status")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * MIB

    def memory() -> int:
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    before = memory()
    bomb = gzip.compress(b"\0" * (300 * MIB), 1)
    for data, headers in (
        (io.BytesIO(b"x" * (2 * MIB)), KEY),
        (endless(), KEY),
        (io.BytesIO(bomb), KEY | {"Content-Encoding": "gzip"}),
    ):
        try:
            async with session.post(
                f"{program.url}/in/t/ttn", data=data, headers=headers
            ) as answer:
                assert answer.status == 413
        except aiohttp.ClientConnectionError:
            # The answer is there before the body ends; a client that goes on writing meets a
            # closed connection. Memory is what counts then.
            continue
    assert memory() - before < 64 * MIB


async def test_cruel_converters_harm_only_their_own_message(
    program: Program, session: aiohttp.ClientSession
) -> None:
    """Throwing, looping, eating memory, nonsense, a regular expression that hangs: each a dead
    letter with script and message; the good ones between them go through.
    """
    kinds = {1: "script_threw", 2: "script_time", 3: "script_memory", 4: "script_result",
             5: "script_time"}  # fmt: skip
    for first in (6, 1, 2, 7, 3, 4, 5, 9):
        body = ttn("cruel-1", bytes([first]), counter=first)
        async with session.post(f"{program.url}/in/t/cruel", json=body, headers=KEY) as answer:
            assert answer.status == 202
    found = await letters(program, 5, stage="convert", key="t/app:cruel-1")

    assert sorted(letter.reason for letter in found) == sorted(kinds.values())
    (threw,) = [letter for letter in found if letter.reason == "script_threw"]
    assert "I refuse" in threw.message
    assert "cruel.js" in threw.detail["script"]
    assert threw.detail["line"] == 4
    assert orjson.loads(threw.value or b"")["dev_id"] == "cruel-1"
    events = [orjson.loads(value) for value in read(program, topics.DEVICE_EVENTS)]
    good = [e["telemetry"]["n"] for e in events if e.get("device") == "app:cruel-1"]
    assert good == [6, 7, 9]


async def test_rule_that_fails(program: Program, session: aiohttp.ClientSession) -> None:
    """A failing node's failure outlet takes the message; where there is none: a dead letter that
    names chain, node and expression.
    """
    body = ttn("cruel-2", bytes([8]))
    async with session.post(f"{program.url}/in/t/cruel", json=body, headers=KEY) as answer:
        assert answer.status == 202
    (letter,) = await letters(program, 1, stage="route", key="t/app:cruel-2")

    assert (letter.detail["chain"], letter.detail["node"]) == ("cruel", "fails")
    assert "zero" in letter.message
    url = f"{program.url}/api/v1/tenants/t/devices/app:cruel-2/attributes/server"
    async with session.get(url) as answer:
        assert (await answer.json()) == {"failed": True}, "the other chain took its failure"


@pytest.mark.parametrize(
    ("device", "asked", "reason"),
    [
        ("app:d0", {"payload": "AQ==", "f_port": 0}, "f_port"),
        ("app:d0", {"payload": b64encode(b"x" * 300).decode(), "f_port": 1}, "payload_length"),
        ("app:d0", {"fields": {"n": "no number"}}, "script_threw"),
        ("ABC123", {"payload": b64encode(b"x" * 9).decode()}, "payload_length"),
    ],
)
async def test_downlink_that_cannot_leave_fails(
    program: Program,
    session: aiohttp.ClientSession,
    device: str,
    asked: dict[str, Any],
    reason: str,
) -> None:
    """f_port 0, too long, not encodable, not 8 bytes for Sigfox: `failed` with the reason."""
    async with session.post(
        f"{program.url}/in/t/ttn", json=ttn("d0", b"\0\0\0\1"), headers=KEY
    ) as answer:
        assert answer.status == 202
    sigfox = {"device": "ABC123", "time": "1", "data": "00000001", "seqNumber": "1", "ack": "false"}
    async with session.post(
        f"{program.url}/in/t/sigfox", json=sigfox, params={"key": "secret"}
    ) as answer:
        assert answer.status == 204
    url = f"{program.url}/api/v1/tenants/t/devices/{device}/downlinks"
    async with session.post(url, json=asked) as answer:
        said = await answer.json()
        assert answer.status == 422, said

    assert (said["state"], said["reason"]) == ("failed", reason)
    lives = [msgspec.json.decode(v, type=Downlink) for v in read(program, topics.DOWNLINK_STATUS)]
    assert [d.state for d in lives if d.id == said["id"]] == ["requested", "failed"]


async def test_full_disk(tmp_path: Path, rules: Path) -> None:
    """No room: 503, no 2xx without a write, a clear log; with room again it goes on by itself."""
    env = {"LEDGER_SERVERS": "http://127.0.0.1:9", "LEDGER_ARCHIVE": str(tmp_path / "a.jsonl")}
    with Program(rules, tmp_path / "data", env) as program:
        async with aiohttp.ClientSession() as session:
            await program.ready(session)
            assert program.process is not None
            # A limit on the size of files is a disk that is full: writes fail, by the kernel.
            no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (256 * 1024, no_limit[1]))
            statuses = []
            for n in range(400):
                body = ttn("d", n.to_bytes(4, "big"), counter=n, filler="x" * 2_000)
                async with session.post(
                    f"{program.url}/in/t/ttn", json=body, headers=KEY
                ) as answer:
                    statuses.append((n, answer.status))
                    if answer.status == 503:
                        assert int(answer.headers["Retry-After"]) > 0
            assert {status for _, status in statuses} == {202, 503}
            resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, no_limit)
            async with asyncio.timeout(60):
                status = 0
                while status != 202:
                    body = ttn("after", (7).to_bytes(4, "big"))
                    async with session.post(
                        f"{program.url}/in/t/ttn", json=body, headers=KEY
                    ) as answer:
                        status = answer.status
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)
        assert program.stop() == 0, program.said()
        counters = {
            orjson.loads(value)["counter"] for value in read(program, topics.UPLINK_RECEIVED)
        }
        assert {n for n, status in statuses if status == 202} <= counters
        said = program.said()
        assert "room" in said or "full" in said


def test_broken_rules(tmp_path: Path) -> None:
    """`check` says every fault with its place and a suggestion; `run` says it and refuses."""
    folder = write_rules(tmp_path / "rules")
    (folder / "integrations/ttn.yaml").write_text(
        "dialekt: ttn_v2\nauthentication: open\nconverter: t/lejer\n"
    )
    chain = folder / "chains/ledger.yaml"
    chain.write_text(chain.read_text().replace("to: application", "to: aplication"))
    commands = (["check", str(folder)], ["run", "--rules", str(folder), "--data", str(tmp_path)])
    for command in commands:
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *command],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=Path(__file__).parents[2],
            env={"LEDGER_SERVERS": "http://127.0.0.1:9", "LEDGER_ARCHIVE": "a", "PATH": "/bin"},
            check=False,
        )

        assert ended.returncode == 2
        for said in (
            "integrations/ttn.yaml:1:1", "did you mean `dialect`",
            "did you mean `application`", "chains/ledger.yaml:",
        ):  # fmt: skip
            assert said in ended.stderr
