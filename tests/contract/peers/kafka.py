"""Another system's Kafka: a broker of the suite's own, which stands still when it is cut off. That
one may be killed, too, is with the transport's own tests.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from secrets import token_hex
from typing import Any, ClassVar, Self

from confluent_kafka import Consumer, TopicPartition

from pipeline.rulebook.book import Integration
from tests.contract.peers.peer import (
    BODY_BYTES,
    HOSTILE,
    NOT_UTF8,
    TRUNCATED,
    Peer,
    Peers,
    Place,
    message,
)
from tests.kafka.brokers import Brokers, needed
from tests.kafka.ingest_work import produce
from tests.real.source_work import Process, integration


class OneBroker:
    """A broker that only this suite's tests use, and may stop where it stands."""

    def start(self) -> Self:
        needed()
        self.brokers = Brokers.start(1)
        return self

    def remove(self) -> None:
        self.brokers.stop()


class KafkaPeer(Peer):
    """A topic of one partition, in which a device's records have its name as key."""

    acknowledges: ClassVar[str] = "the group's committed offset"
    limits: ClassVar[dict[str, str]] = {
        "slow": "a broker takes a record whole before anybody reads it; one that stands still"
        " itself is what the reconnect is tested with",
        "downlinks": "a topic has no device at its end: downlinks go to the API of the network"
        " server whose topic it is, as the dialect posts them",
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._brokers = place.servers[OneBroker].brokers
        self._topic = f"contract-{token_hex(4)}"
        self._kept: list[int] | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._brokers.create, {self._topic: 1})

    async def stop(self) -> None:
        await asyncio.to_thread(self._brokers.resume, 1)

    def integration(self) -> Integration:
        made = integration(
            "http", "kafka", {"device_query": "key"}, servers=self._brokers.bootstrap,
            topics=[self._topic], group=self._topic, start="earliest", session_timeout=6,
            connect_timeout=5,
        )  # fmt: skip
        return replace(made, name="barn")

    async def send(self, *numbers: int) -> None:
        if self._kept is not None:
            self._kept += numbers
        else:
            await self._produce(*(("d1", message(number)) for number in numbers))

    async def _produce(self, *records: tuple[Any, ...]) -> None:
        await asyncio.to_thread(produce, self._brokers, self._topic, *records)

    async def acknowledged(self) -> int:
        return await asyncio.to_thread(self._committed)

    def _committed(self) -> int:
        config = {"bootstrap.servers": self._brokers.bootstrap, "group.id": self._topic}
        consumer = Consumer({**config, "log_level": 0})
        try:
            (found,) = consumer.committed([TopicPartition(self._topic, 0)], timeout=10)
        finally:
            consumer.close()
        return max(0, found.offset)

    async def cut(self) -> None:
        await asyncio.to_thread(self._brokers.pause, 1)
        self._kept = []

    async def mend(self) -> None:
        await asyncio.to_thread(self._brokers.resume, 1)
        kept, self._kept = self._kept or [], None
        await self.send(*kept)

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "truncated":
                records: list[tuple[Any, ...]] = [("d1", TRUNCATED), ("d1", b""), ("d1", None)]
            case "oversized":
                records = [("d1", b"x" * BODY_BYTES), ("d1", b"[" * 500_000)]
            case "wrong encoding":
                records = [("d1", NOT_UTF8), (NOT_UTF8, b"{}"), (None, b"{}")]
            case _:
                headers = [(name, name.encode()) for name in HOSTILE]
                headers += [("Authorization", b"x"), ("", b"x"), ("\r\n", NOT_UTF8)]
                records = [(name, b"{}", headers) for name in HOSTILE]
        await self._produce(*records)
        return len(records)


PEERS: Peers = {"kafka": KafkaPeer}
