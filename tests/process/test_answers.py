"""The real program under what makes answers doubtful: two different uplinks never carry the same
downlink, unless it was flagged as possibly delivered; and none is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from pipeline import topics
from pipeline.stream.sqlite import SqliteLog
from tests.process.program import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
WAITING = 1_000
GRACE_S = 20.0  # of 9 s until an answer's deadline and 5 s for the door's report, with room


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    rules = tmp_path / "rules"
    (rules / "integrations").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/meters.yaml").write_text(
        "dialect: sigfox\nauthentication: open\nqueue_max: 1000\n"
    )
    with Program(rules, tmp_path / "data") as running:
        yield running


class Meters:
    """Devices and their network server; keeps what each request was answered."""

    def __init__(self, program: Program, session: aiohttp.ClientSession) -> None:
        self.program, self.session = program, session
        self.numbers = count(1)
        self.answers: dict[str, set[int]] = defaultdict(set)
        """Payload → the sequence numbers of the uplinks that got it."""

    async def ask(self, device: str, number: int, **more: Any) -> str:
        """Ask for a downlink of 8 bytes that tell it from any other; return its id."""
        body = {"payload": b64encode(number.to_bytes(8, "big")).decode(), "queue": "last",
                "integration": "meters", **more}  # fmt: skip
        address = f"{self.program.url}/api/v1/tenants/acme/devices/{device}/downlinks"
        async with self.session.post(address, json=body) as answer:
            assert answer.status == 202, await answer.text()
            return str(orjson.loads(await answer.read())["id"])

    async def uplink(self, device: str, number: int | None = None) -> str:
        """Post an uplink and return the payload of its answer; empty: there was none."""
        number = next(self.numbers) if number is None else number
        async with self.session.post(
            f"{self.program.url}/in/acme/meters", json=callback(device, number)
        ) as answer:
            if answer.status != 200:
                assert answer.status == 204, await answer.text()
                return ""
            said = orjson.loads(await answer.read())
        payload = str(said[device]["downlinkData"])
        self.answers[payload].add(number)
        return payload

    async def downlink(self, device: str, downlink_id: str) -> dict[str, Any]:
        """Return a downlink as it stands."""
        address = f"{self.program.url}/api/v1/tenants/acme/devices/{device}/downlinks"
        async with self.session.get(f"{address}/{downlink_id}") as answer:
            return dict(orjson.loads(await answer.read()))

    async def state(self, device: str, downlink_id: str, *states: str) -> dict[str, Any]:
        """Return a downlink when it has one of these states."""
        async with asyncio.timeout(GRACE_S):
            while True:
                found = await self.downlink(device, downlink_id)
                if found.get("state") in states:
                    return found
                await asyncio.sleep(0.05)

    async def news(self, device: str, downlink_id: str) -> dict[str, Any]:
        """Return a downlink when it is known what became of the answer that it was in."""
        async with asyncio.timeout(GRACE_S):
            while True:
                found = await self.downlink(device, downlink_id)
                if found["state"] == "sent" or found.get("reason"):
                    return found
                await asyncio.sleep(0.02)

    def send(self, device: str, number: int) -> socket.socket:
        """Send an uplink by a socket, and read no answer."""
        where = urlsplit(self.program.url)
        raw = socket.create_connection((where.hostname, where.port))
        body = orjson.dumps(callback(device, number))
        head = (
            f"POST /in/acme/meters HTTP/1.1\r\nhost: {where.netloc}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        raw.sendall(head.encode() + body)
        return raw

    def check(self) -> None:
        """Hold the log to the invariant: an uplink's downlink is no other's, unless flagged."""
        with SqliteLog.peek(self.program.data / "funicular.db") as view:
            told = view.scan(topics.DOWNLINK_STATUS, limit=1_000_000)
        flagged = set()
        for record in told:
            status = orjson.loads(record.value or b"")
            if status.get("possibly_delivered"):
                flagged.add(status["payload"])
        for payload, numbers in self.answers.items():
            if len(numbers) > 1:
                assert b64encode(bytes.fromhex(payload)).decode() in flagged, (payload, numbers)


def callback(device: str, number: int) -> dict[str, str]:
    return {
        "device": device,
        "time": str(1_700_000_000 + number),
        "data": "00",
        "seqNumber": str(number % 4096),
        "ack": "true",
    }


@pytest.fixture
async def meters(program: Program) -> AsyncIterator[Meters]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await program.ready(session)
        found = Meters(program, session)
        yield found
        found.check()


async def test_two_uplinks_at_once(meters: Meters) -> None:
    """Two different uplinks of one device at once, 30 times: one of them carries the downlink."""
    for number in range(30):
        await meters.ask("A1", number)
        answers = await asyncio.gather(meters.uplink("A1"), meters.uplink("A1"))
        assert sorted(answers) == ["", number.to_bytes(8, "big").hex()]


async def test_repeats_get_the_same_answer(meters: Meters) -> None:
    """The network server's repeat, at once or later, gets the first one's answer, also an empty
    one, and uses up no other downlink.
    """
    first, second = [await meters.ask("A1", number) for number in (1, 2)]
    answers = await asyncio.gather(*(meters.uplink("A1", 7) for _ in range(5)))
    later = await meters.uplink("A1", 7)
    assert {*answers, later} == {(1).to_bytes(8, "big").hex()}
    assert (await meters.downlink("A1", second))["state"] == "queued"
    assert (await meters.state("A1", first, "sent"))["state"] == "sent"
    assert await meters.uplink("A1", 8) == (2).to_bytes(8, "big").hex()
    assert await meters.uplink("A1", 9) == ""
    await meters.ask("A1", 3)
    assert await meters.uplink("A1", 9) == ""


async def test_connection_lost_before_the_answer(meters: Meters) -> None:
    """A client that hangs up while its request waits: the downlink waits again or is flagged, and
    the next uplink has it.
    """
    assert meters.program.process is not None
    for number in range(5):
        downlink = await meters.ask("A1", number)
        # Nothing is answered while the program stands still; then the client has gone.
        os.kill(meters.program.process.pid, signal.SIGSTOP)
        raw = meters.send("A1", 100 + number)
        raw.close()
        os.kill(meters.program.process.pid, signal.SIGCONT)
        found = await meters.news("A1", downlink)
        if found["state"] == "queued":
            assert found["reason"] in ("too_late", "not_answered")
            assert found.get("possibly_delivered", False) == (found["reason"] == "not_answered")
            assert await meters.uplink("A1", 200 + number) == number.to_bytes(8, "big").hex()
        else:
            # The operating system took the answer before it knew that the client had gone.
            meters.answers[number.to_bytes(8, "big").hex()].add(100 + number)


async def test_connection_lost_during_the_answer(meters: Meters) -> None:
    """A client that resets its connection as the answer comes: the downlink is sent, or comes back
    flagged or as surely not delivered; it is never lost and never twice without a flag.
    """
    for number in range(20):
        downlink = await meters.ask("A1", number)
        raw = meters.send("A1", 300 + number)
        await asyncio.sleep(0.001 * (number % 7))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        await asyncio.sleep(0.05)
        found = await meters.state("A1", downlink, "sent", "queued")
        if found["state"] == "queued":
            assert await meters.uplink("A1", 400 + number) == number.to_bytes(8, "big").hex()
        else:
            meters.answers[number.to_bytes(8, "big").hex()].add(300 + number)


async def test_connection_lost_after_the_answer(meters: Meters) -> None:
    """A client that has read its answer and resets the connection has it: no other uplink gets the
    downlink.
    """
    downlink = await meters.ask("A1", 1)
    raw = meters.send("A1", 7)
    assert b"downlinkData" in await asyncio.to_thread(raw.recv, 4_096)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()

    assert (await meters.state("A1", downlink, "sent"))["state"] == "sent"
    assert await meters.uplink("A1") == ""


async def test_expires_while_the_request_waits(meters: Meters) -> None:
    """A request that came before a downlink's expiry and is handled after it is answered empty."""
    assert meters.program.process is not None
    downlink = await meters.ask("A1", 1, expires_in="300ms")
    os.kill(meters.program.process.pid, signal.SIGSTOP)
    asked = asyncio.create_task(meters.uplink("A1", 7))
    await asyncio.sleep(0.6)
    os.kill(meters.program.process.pid, signal.SIGCONT)

    assert await asked == ""
    assert (await meters.downlink("A1", downlink))["state"] == "expired"


async def test_a_thousand_requests_wait(meters: Meters) -> None:
    """1,000 requests of 1,000 devices at once: each gets its own device's downlink."""
    devices = [f"{number:04X}" for number in range(WAITING)]
    for start in range(0, WAITING, 50):
        numbered = list(enumerate(devices))[start : start + 50]
        await asyncio.gather(*(meters.ask(device, number) for number, device in numbered))
    assert meters.program.process is not None
    # All of them stand at the door before the first is handled.
    os.kill(meters.program.process.pid, signal.SIGSTOP)
    asked = [asyncio.create_task(meters.uplink(device, 1)) for device in devices]
    await asyncio.sleep(1)
    os.kill(meters.program.process.pid, signal.SIGCONT)
    answers = await asyncio.gather(*asked)

    assert answers == [number.to_bytes(8, "big").hex() for number in range(WAITING)]


async def test_restart_in_between(meters: Meters) -> None:
    """Killed while a request waits for its answer, three times: the downlink is not lost; the next
    uplink has it, flagged if the answer may have left.
    """
    program = meters.program
    for number in range(3):
        downlink = await meters.ask("A1", number)
        asked = asyncio.create_task(meters.uplink("A1", 500 + number))
        await asyncio.sleep(0.004 * number)
        await asyncio.to_thread(program.kill)
        try:
            got = await asked
        except aiohttp.ClientError:
            got = ""
        program.start()
        await program.ready(meters.session)
        found = await meters.state("A1", downlink, "sent", "queued")
        if found["state"] == "queued":
            again = await meters.uplink("A1", 600 + number)
            assert again == number.to_bytes(8, "big").hex()
        else:
            assert got
