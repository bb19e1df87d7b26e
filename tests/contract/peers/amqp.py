"""A broker of AMQP 0-9-1, and who publishes to it: RabbitMQ, which is shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import ClassVar

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from pipeline.rulebook.book import Integration
from tests.contract.peers.peer import (
    BODY_BYTES,
    HOSTILE,
    NOT_UTF8,
    TRUNCATED,
    Peer,
    Peers,
    Place,
    handed_over,
    message,
    payload_of,
)
from tests.real.sink_servers import Rabbitmq
from tests.real.sink_work import Cable
from tests.real.source_work import Process, integration


class RabbitmqPeer(Peer):
    """A queue of its own, which a cable leads to."""

    acknowledges: ClassVar[str] = "what waits in the queue when nobody reads it"
    limits: ClassVar[dict[str, str]] = {
        "slow": "a broker takes a message whole before it hands it on; one that stalls itself is"
        " left after its heartbeats, whose test is with the transport"
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.broker = place.servers[Rabbitmq]
        self.cable = Cable(self.broker.port)
        self.queue = f"contract-{token_hex(4)}"
        self._sent = 0

    async def start(self) -> None:
        await self.cable.mend()
        async with self.channel() as channel:
            await channel.queue_declare(self.queue, durable=True)

    async def stop(self) -> None:
        await self.cable.cut()
        async with self.channel() as channel:
            await channel.queue_delete(self.queue)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """Open a channel, past the cable."""
        connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{self.broker.port}/")
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def send(self, *numbers: int) -> None:
        self._sent += len(numbers)
        await self.publish(*(message(number) for number in numbers))

    async def publish(self, *bodies: bytes) -> None:
        """Put bodies into the queue, to be kept."""
        async with self.channel() as channel:
            for body in bodies:
                await self.put(channel, body)

    async def put(self, channel: AbstractChannel, body: bytes) -> None:
        """Put one body into the queue, to be kept."""
        kept = Basic.Properties(delivery_mode=2)
        await channel.basic_publish(body, routing_key=self.queue, properties=kept)

    async def acknowledged(self) -> int:
        async with self.channel() as channel:
            declared = await channel.queue_declare(self.queue, passive=True)
        assert declared.message_count is not None
        return self._sent - declared.message_count

    async def cut(self) -> None:
        await self.cable.cut()

    async def mend(self) -> None:
        await self.cable.mend()

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "truncated":
                bodies = [TRUNCATED, b""]
            case "oversized":
                bodies = [b"x" * BODY_BYTES, b"[" * 200_000]
            case "wrong encoding":
                bodies = [NOT_UTF8]
            case _:
                return await self.hostile()
        await self.publish(*bodies)
        return len(bodies)

    async def hostile(self) -> int:
        """Publish with keys and properties that no device should have; return how many."""
        raise NotImplementedError

    async def heard(self, channel: AbstractChannel, queue: str, count: int) -> list[bytes]:
        """Return the payloads of downlinks that arrived in a queue."""
        found = [await channel.basic_get(queue, no_ack=True) for _ in range(count)]
        return [payload_of(bytes(each.body)) for each in found]


class AmqpPeer(RabbitmqPeer):
    """Publishes to an exchange with the device in the key."""

    def integration(self) -> Integration:
        return integration(
            "http", "amqp", {"device_query": "device_id"},
            server=f"amqp://127.0.0.1:{self.cable.port}", queue=self.queue, connect_timeout="2s",
            bindings=[{"exchange": "amq.topic"}],
            routing_key=f"{self.queue}.{{device_id}}.{{kind}}",
            downlinks={"exchange": "amq.topic", "routing_key": f"{self.queue}-down.{{device_id}}"},
        )  # fmt: skip

    async def put(self, channel: AbstractChannel, body: bytes) -> None:
        await self._put(channel, body, f"{self.queue}.d1.up", {})

    async def _put(
        self, channel: AbstractChannel, body: bytes, key: str, headers: dict[str, object]
    ) -> None:
        kept = Basic.Properties(delivery_mode=2, headers=headers)
        await channel.basic_publish(body, exchange="amq.topic", routing_key=key, properties=kept)

    async def start(self) -> None:
        await super().start()
        async with self.channel() as channel:
            await channel.queue_bind(self.queue, "amq.topic", f"{self.queue}.#")

    async def hostile(self) -> int:
        keys = [f"{self.queue}.{name[:80]}.up" for name in HOSTILE] + [
            f"{self.queue}..",
            self.queue,
        ]
        async with self.channel() as channel:
            for key in keys:
                named: dict[str, object] = {name[:60]: name for name in HOSTILE}
                await self._put(channel, b"{}", key, {**named, "Authorization": "x", "\r\n": "x"})
        return len(keys)

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        async with self.channel() as channel:
            queue = (await channel.queue_declare(exclusive=True)).queue or ""
            await channel.queue_bind(queue, "amq.topic", f"{self.queue}-down.d1")
            await handed_over(self.integration(), count, device_id="d1")
            return await self.heard(channel, queue, count)


PEERS: Peers = {"amqp": AmqpPeer}
