"""The reader of a topic, over a client that behaves as aiokafka does where partitions move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.clients import kafka
from pipeline.stream import kafka_reader
from pipeline.stream.kafka_reader import KafkaReader
from pipeline.stream.kafka_settings import KafkaSettings


class MovingClient:
    """While partitions move, `getmany` knows no timeout: it returns when there are new ones."""

    subscribed: asyncio.Future[MovingClient]

    def __init__(self, **_: Any) -> None:
        self.moving = asyncio.Event()
        self.moved = asyncio.Event()
        self.fetching = asyncio.Event()

    async def start(self) -> None:
        """Connect to nothing."""

    async def stop(self) -> None:
        """Leave nothing."""

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.topics, self.listener = topics, listener
        MovingClient.subscribed.set_result(self)

    async def getmany(self, **_: Any) -> dict[Any, Any]:
        self.fetching.set()
        await self.moving.wait()
        await self.moved.wait()
        return {}

    async def committed(self, _: Any) -> int:
        return 0

    def highwater(self, _: Any) -> int:
        return 0


async def test_a_fetch_and_a_move_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fetch that the client holds until partitions have moved does not hold up their move."""
    monkeypatch.setattr(kafka_reader, "AIOKafkaConsumer", MovingClient)
    monkeypatch.setattr(kafka, "POLL_S", 0.01)

    MovingClient.subscribed = asyncio.get_running_loop().create_future()

    async def append(_: Any) -> None:
        """Nothing is written here."""

    reader = KafkaReader(KafkaSettings(bootstrap="none:1"), "uplink.received", append, group="g")

    async def read() -> None:
        async for _ in reader.batches(10):
            """Nothing comes."""

    reading = asyncio.create_task(read())
    async with asyncio.timeout(10):
        client = await MovingClient.subscribed
        await client.listener.on_partitions_assigned(set())
        await client.fetching.wait()
        client.moving.set()
        await client.listener.on_partitions_revoked(set())
        client.moved.set()
        await client.listener.on_partitions_assigned(set())
        await reader.close()
        reading.cancel()
        await asyncio.wait({reading})
