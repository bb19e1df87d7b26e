"""How long another worker needs to take over the state of many devices, with nothing on disk.

In: one broker. Out: seconds from the SIGKILL until devices of all partitions answer through the
API with what was kept.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from click.testing import CliRunner
from confluent_kafka import Producer

from pipeline.cli import main
from pipeline.model.event import AttributesChange
from tests.kafka.brokers import Brokers
from tests.process.ledger_rules import write_rules
from tests.process.program import Program

PARTITIONS = 12
PREFIX = "takeover."
ASKED = 200
"""Devices that must answer: enough to be on all partitions."""
WAIT_S = 300.0


@dataclass
class Takeover:
    """Figures of one run."""

    devices: int
    fill_s: float
    start_s: float  # of the new worker, until it is ready
    takeover_s: float  # from the SIGKILL until all that are asked answer


def fill(bootstrap: str, devices: int) -> None:
    """Append a change of attributes for each device, as any Kafka client may."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": max(200_000, devices),
        }
    )
    for number in range(devices):
        change = AttributesChange(
            id=f"fill-{number}",
            tenant="t",
            device=f"d{number}",
            scope="server",
            time_ms=1_790_000_000_000,
            set={"number": number, "place": f"room {number}", "limit": 21.5},
        )
        value = msgspec.json.encode(change)
        producer.produce(f"{PREFIX}device.events", value, f"t/d{number}")
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


async def takeover(brokers: Brokers, folder: Path, devices: int) -> Takeover:
    """Fill the state by one worker, kill it, start another one elsewhere."""
    rules = write_rules(folder / "rules")
    url = f"kafka://{brokers.bootstrap}?prefix={PREFIX}&partitions={PARTITIONS}"
    copies = min(3, len(brokers.nodes))
    env = {
        "FUNICULAR_LOG": f"{url}&replication={copies}",
        "LEDGER_SERVERS": "http://127.0.0.1:9",
        "LEDGER_ARCHIVE": str(folder / "archive"),
    }
    made = await asyncio.to_thread(
        CliRunner().invoke, main, ["topics", "create", "-r", str(rules)], env=env
    )
    assert made.exit_code == 0, made.output
    door = Program(rules, folder / "door", env, ("worker", "ingest"))
    first = Program(rules, folder / "first", env, ("worker", "route"))
    second = Program(rules, folder / "second", env, ("worker", "route"))
    async with aiohttp.ClientSession() as session:
        with door, first:
            for program in (door, first):
                await program.ready(session, 120)
            began = time.monotonic()
            await asyncio.to_thread(fill, brokers.bootstrap, devices)
            await _filled(session, first, devices)
            await _answer(session, door, devices)
            fill_s = time.monotonic() - began
            killed = time.monotonic()
            await asyncio.to_thread(first.kill)
            with second:
                await second.ready(session, WAIT_S)
                start_s = time.monotonic() - killed
                await _answer(session, door, devices)
                return Takeover(devices, fill_s, start_s, time.monotonic() - killed)


async def _filled(session: aiohttp.ClientSession, program: Program, devices: int) -> None:
    """Return when so many records were handled."""
    deadline = time.monotonic() + WAIT_S
    while await program.done(session) < devices:
        assert time.monotonic() < deadline, program.said()
        await asyncio.sleep(0.1)


async def _answer(session: aiohttp.ClientSession, door: Program, devices: int) -> None:
    """Return when devices from all over answer with their attributes; each must be right."""
    limit = asyncio.Semaphore(20)

    async def ask(number: int) -> None:
        url = f"{door.url}/api/v1/tenants/t/devices/d{number}/attributes/server"
        async with limit, asyncio.timeout(WAIT_S):
            while True:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        found = await answer.json()
                        assert found["number"] == number, found
                        return
                await asyncio.sleep(0.1)

    step = max(1, devices // ASKED)
    await asyncio.gather(*(ask(number) for number in range(0, devices, step)))
