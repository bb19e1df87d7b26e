"""Whole destinations over real servers: an outage in the middle loses nothing and keeps the order
of each device.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import aiomqtt
import asyncpg
import orjson
import pytest
import redis.asyncio

from pipeline.metrics import Registry
from pipeline.sink.clock import MonotonicClock
from pipeline.sink.destination import Destination, Surroundings
from pipeline.sink.endings import sink_ending
from tests.real.sink_servers import Mqtt, Postgresql, Rabbitmq, Redis, SinkServers
from tests.real.sink_work import NOW_MS, SETTINGS, Cable, delivery, made
from tests.unit.sink.fakes import FakeLog, World

COUNT, DEVICES = 600, 5
RETRY = {"first": 0.05, "max": 0.2}
Seen = list[tuple[str, int]]
"""Device and number of each message, as they are in the server, in its order."""


async def in_mqtt(port: int, run: Callable[[], Awaitable[None]]) -> Seen:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("outage/#", qos=1)
        await run()
        seen: Seen = []
        async with asyncio.timeout(10):
            async for message in client.messages:
                body = orjson.loads(message.payload)
                seen.append((str(message.topic).rpartition("/")[2], body["n"]))
                if len(set(seen)) == COUNT:
                    return seen
    return seen


async def in_postgresql(port: int, run: Callable[[], Awaitable[None]]) -> Seen:
    await run()
    connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres")
    rows = await connection.fetch("SELECT device, body->>'n' AS n FROM outage ORDER BY time")
    await connection.close()
    return [(row["device"], int(row["n"])) for row in rows]


async def in_redis(port: int, run: Callable[[], Awaitable[None]]) -> Seen:
    await run()
    client = redis.asyncio.Redis(port=port)
    found: list[Any] = await client.xrange("outage")
    await client.aclose()
    return [(one[b"device"].decode(), orjson.loads(one[b"body"])["n"]) for _, one in found]


async def in_rabbitmq(port: int, run: Callable[[], Awaitable[None]]) -> Seen:
    connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
    channel = await connection.channel()
    queue = await channel.declare_queue("outage", auto_delete=True)
    await run()
    seen: Seen = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        seen.append((message.headers["device"], orjson.loads(message.body)["n"]))
    await connection.close()
    return seen


CASES: dict[str, tuple[type[Any], Any, Callable[[int], dict[str, Any]]]] = {
    "mqtt": (
        Mqtt,
        in_mqtt,
        lambda port: {
            "server": f"mqtt://127.0.0.1:{port}",
            "topic": "outage/{device}",
            "timeout": 1,
            "connect_timeout": 1,
        },
    ),
    "postgresql": (
        Postgresql,
        in_postgresql,
        lambda port: {
            "url": f"postgresql://postgres@127.0.0.1:{port}/postgres",
            "table": "outage",
            "timeout": 1,
            "connect_timeout": 1,
        },
    ),
    "redis": (
        Redis,
        in_redis,
        lambda port: {"url": f"redis://127.0.0.1:{port}", "stream": "outage", "timeout": 1},
    ),
    "amqp": (
        Rabbitmq,
        in_rabbitmq,
        lambda port: {
            "url": f"amqp://guest:guest@127.0.0.1:{port}/",
            "routing_key": "outage",
            "timeout": 1,
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_outage_loses_nothing(name: str, sink_servers: SinkServers) -> None:
    """The cable is cut three times while 600 deliveries of 5 devices go out, in batches of 20: each
    arrives, those of a device in order (a repeat apart), and there is no dead letter.
    """
    kind, seen_in, config = CASES[name]
    port = sink_servers[kind].port
    world = World()
    log = FakeLog(world)
    failures: list[BaseException] = []

    async def run() -> None:
        async with Cable(port) as cable:
            transport = made(name, **config(cable.port), batch=20, retry=RETRY)
            clock = MonotonicClock()
            around = Surroundings(log, SETTINGS, Registry(), lambda: NOW_MS, random.random, clock)
            destination = Destination("acme", "app", transport, sink_ending, around)
            destination.start(failures.append)
            for part in range(4):
                for number in range(part * COUNT // 4, (part + 1) * COUNT // 4):
                    log.deliver(delivery(number, f"dev{number % DEVICES}"))
                await asyncio.sleep(0.15)
                if part < 3:
                    await cable.cut()
                    await asyncio.sleep(0.1)
                    await cable.mend()
            deadline = time.monotonic() + 60
            while log.position("app") < COUNT:
                assert time.monotonic() < deadline, (log.position("app"), destination.status())
                assert not failures
                await asyncio.sleep(0.02)
            await destination.stop(5)

    seen = await seen_in(port, run)

    assert failures == []
    assert log.dead_letters() == []
    assert {number for _, number in seen} == set(range(COUNT))
    for device in range(DEVICES):
        own = [number for name, number in seen if name == f"dev{device}"]
        firsts = list(dict.fromkeys(own))
        assert firsts == sorted(firsts)
