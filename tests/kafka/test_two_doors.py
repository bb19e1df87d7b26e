"""Two real doors on one cluster: a device that speaks by both at once, and dead letters asked for
at each.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from tests.kafka.brokers import Brokers
from tests.process.program import Program

pytestmark = pytest.mark.timeout(300)
ROUNDS = 20
PARTITIONS = 3
DEVICE = "/api/v1/tenants/acme/devices/A1"
LETTERS = "/api/v1/tenants/acme/dead-letters"
RULES = {
    "funicular.yaml": "tenant: acme\n",
    # A slow machine is to be slow here, and nothing else.
    "integrations/meters.yaml": "dialect: sigfox\nauthentication: open\nanswer_timeout: 60s\n",
    "integrations/broken.yaml": ("dialect: sigfox\nauthentication: open\nconverter: acme/broken\n"),
    "converters/acme/broken.yaml": "uplinkDecoder:\n  fileName: broken.js\n",
    "converters/acme/broken.js": "function decodeUplink(input) { throw new Error('no'); }\n",
}
STAGES = ("worker", "convert", "route", "downlink", "sink")


@pytest.fixture
def programs(kafka: Brokers, prefix: str, tmp_path: Path) -> Iterator[list[Program]]:
    """Two doors, and one worker for the stages."""
    rules = tmp_path / "rules"
    for name, text in RULES.items():
        path = rules / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    url = f"kafka://{kafka.bootstrap}?prefix={prefix}&partitions={PARTITIONS}&replication=1"
    env = {"FUNICULAR_LOG": url}
    made = CliRunner().invoke(main, ["topics", "create", "-r", str(rules)], env=env)
    assert made.exit_code == 0, made.output
    commands = {"one": ("worker", "ingest"), "two": ("worker", "ingest"), "stages": STAGES}
    with ExitStack() as stack:
        yield [
            stack.enter_context(Program(rules, tmp_path / name, env, command))
            for name, command in commands.items()
        ]


async def until(true: Callable[[], Awaitable[bool]], timeout_s: float = 90) -> None:
    """Ask again and again until it is so."""
    async with asyncio.timeout(timeout_s):
        while True:
            if await true():
                return
            await asyncio.sleep(0.2)


class Doors:
    """Both doors, to a device and to applications."""

    def __init__(self, session: aiohttp.ClientSession, addresses: list[str]) -> None:
        self.session, self.addresses = session, addresses
        self.numbers = count(1)

    async def uplink(self, door: int, number: int, integration: str = "meters") -> str:
        """Post an uplink at a door; return the payload of its answer, empty: there was none."""
        body = {"device": "A1", "time": str(1_700_000_000 + number), "data": f"{number % 256:02x}",
                "seqNumber": str(number % 4096), "ack": "true"}  # fmt: skip
        address = f"{self.addresses[door]}/in/acme/{integration}"
        async with self.session.post(address, json=body) as answer:
            if answer.status == 204:
                return ""
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["A1"]["downlinkData"])

    async def at_both(self, *, same: bool = False) -> list[str]:
        """Let the device speak at both doors at once: two uplinks, or the `same` one twice."""
        first = next(self.numbers)
        second = first if same else next(self.numbers)
        return list(await asyncio.gather(self.uplink(0, first), self.uplink(1, second)))

    async def ask(self, door: int, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Ask the API at a door."""
        async with self.session.request(method, self.addresses[door] + path, **more) as answer:
            return answer.status, await answer.json()

    async def owned(self, door: int) -> bool:
        """Return whether the device's owner answers at a door: it has its partitions by then."""
        status, _ = await self.ask(door, "GET", f"{DEVICE}/downlinks")
        return status == 200

    async def downlink(self, number: int) -> str:
        """Ask for a downlink, at one door and then at the other; return what it carries."""
        asked = {"payload": b64encode(number.to_bytes(8, "big")).decode(), "queue": "last",
                 "integration": "meters"}  # fmt: skip
        status, said = await self.ask(number % 2, "POST", f"{DEVICE}/downlinks", json=asked)
        assert status == 202, said
        return number.to_bytes(8, "big").hex()


@pytest.fixture
async def doors(programs: list[Program]) -> AsyncIterator[Doors]:
    async with aiohttp.ClientSession() as session:
        for program in programs:
            await program.ready(session, 90)
        doors = Doors(session, [program.url for program in programs[:2]])
        for door in (0, 1):
            await until(lambda door=door: doors.owned(door))
        yield doors


async def test_one_device_at_two_doors(doors: Doors) -> None:
    """Of two different uplinks at once one carries the downlink; the same uplink at both doors is
    a repeat, and gets the same answer at each. None is lost, and the reports of both doors end
    each as sent.
    """
    carried: Counter[str] = Counter()
    for number in range(ROUNDS):
        payload = await doors.downlink(number)
        answers = await doors.at_both()
        assert sorted(answers) == ["", payload]
        carried[payload] += 1
    for number in range(ROUNDS, 2 * ROUNDS):
        payload = await doors.downlink(number)
        assert await doors.at_both(same=True) == [payload, payload]
        carried[payload] += 1

    assert set(carried.values()) == {1}
    assert len(carried) == 2 * ROUNDS

    async def all_sent() -> bool:
        _, said = await doors.ask(1, "GET", f"{DEVICE}/downlinks")
        assert not any(one.get("possibly_delivered") for one in said["downlinks"])
        return {one["state"] for one in said["downlinks"]} == {"sent"}

    await until(all_sent)


async def test_dead_letters_at_each_door(doors: Doors) -> None:
    """Letters are listed by pages, shown, replayed and dropped at either door; what one did the
    other sees, and a letter is replayed once.
    """
    for number in range(6):
        await doors.uplink(number % 2, number, "broken")

    async def listed(door: int, **query: str) -> list[str]:
        places: list[str] = []
        after = ""
        while True:
            status, said = await doors.ask(
                door, "GET", LETTERS, params={"limit": "2", "after": after, **query}
            )
            assert status == 200, said
            places += [one["place"] for one in said["dead_letters"]]
            after = said.get("after", "")
            if not after:
                return places

    async def found(count: int) -> bool:
        return len(await listed(0)) >= count

    await until(lambda: found(6))
    places = await listed(0)
    assert sorted(await listed(1)) == sorted(places)
    assert len(set(places)) == 6
    status, shown = await doors.ask(1, "GET", f"{LETTERS}/{places[0]}")
    assert (status, shown["letter"]["stage"]) == (200, "convert")
    assert (await doors.ask(1, "GET", f"{LETTERS}/0-999999"))[0] == 404

    status, done = await doors.ask(0, "POST", f"{LETTERS}/replay", json={"places": places[:2]})
    assert (status, done) == (200, {"done": places[:2], "refused": []})
    status, again = await doors.ask(1, "POST", f"{LETTERS}/replay", json={"places": places[:3]})
    assert status == 200
    assert again["done"] == places[2:3]
    assert [(one["place"], one["code"]) for one in again["refused"]] == [
        (place, "already") for place in places[:2]
    ]
    status, dropped = await doors.ask(1, "POST", f"{LETTERS}/drop", json={"places": places[3:]})
    assert (status, dropped["done"]) == (200, places[3:])

    assert sorted(await listed(0, fate="replayed")) == sorted(places[:3])
    # What was replayed failed again, and is a new letter each.
    await until(lambda: found(3))
    assert not set(await listed(0)) & set(places)
