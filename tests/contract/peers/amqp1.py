"""A broker of AMQP 1.0: RabbitMQ with its plug-in, which is shared; what is written to its queue
comes by AMQP 0-9-1, or as bytes that are no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

import proton

from pipeline.clients.amqp1 import connected
from pipeline.rulebook.book import Integration
from tests.contract.peers.amqp import RabbitmqPeer
from tests.contract.peers.peer import HOSTILE, Peers, handed_over
from tests.real.source_work import Process, integration


class Amqp1Peer(RabbitmqPeer):
    """Reads a queue, which has an address there."""

    def integration(self) -> Integration:
        return self._at(self.queue)

    def _at(self, queue: str) -> Integration:
        return integration(
            "http", "amqp1", {"device_field": "device"},
            server=f"amqp://127.0.0.1:{self.cable.port}", user="guest", password="guest",
            address=f"/amq/queue/{queue}", connect_timeout="2s",
            downlinks={"address": f"/amq/queue/{queue}-down"},
        )  # fmt: skip

    async def publish(self, *bodies: bytes) -> None:
        made = [proton.Message(body=body, inferred=True, durable=True) for body in bodies]
        await self._send(made)

    async def _send(self, messages: Sequence[proton.Message]) -> None:
        config = self.integration().connection
        direct = config.model_copy(update={"server": f"amqp://127.0.0.1:{self.broker.port}"})
        async with connected(direct, f"contract-{token_hex(4)}") as connection:
            for each in messages:
                outcome = await connection.send(direct.address, each.encode())
                assert outcome.accepted

    async def hostile(self) -> int:
        made = [
            proton.Message(
                body=b"{}", inferred=True, subject=name, id=name,
                properties={name: name, "Authorization": "x", "\r\n": "x", "": None},
            )
            for name in HOSTILE
        ]  # fmt: skip
        await self._send(made)
        return len(made)

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        async with self.channel() as channel:
            down = f"{self.queue}-down"
            await channel.queue_declare(down, durable=True)
            await handed_over(self.integration(), count, device_id="d1")
            heard = await self.heard(channel, down, count)
            await channel.queue_delete(down)
        return heard


PEERS: Peers = {"amqp1": Amqp1Peer}
