"""A broker, and devices that publish to it: mosquitto, of MQTT 3.1.1 and 5."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar

import aiomqtt

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
from tests.real.servers import Mosquitto
from tests.real.sink_work import Cable
from tests.real.source_work import Process, integration

TOPIC = "plant/{device_id}/{kind}"
DOWN = "plant/{device_id}/set"
WAIT_S = 10.0


class MqttPeer(Peer):
    """Each test has a broker of its own, which is killed when it is cut off."""

    acknowledges: ClassVar[str] = "PUBACK, as the broker's log says"
    limits: ClassVar[dict[str, str]] = {
        "slow": "a broker takes a message whole before it hands it on; one that stalls itself is"
        " left after its keepalive, whose test is with the transport"
    }

    def __init__(self, version: str, place: Place) -> None:
        super().__init__(place)
        self._version = version
        folder = Path(mkdtemp(dir=place.folder))
        self._broker = Mosquitto(folder, lines=["log_type all"])
        self._cable = Cable(self._broker.port)
        self._sent = 0
        self._kept: list[int] | None = None  # while the broker is away

    async def start(self) -> None:
        await asyncio.to_thread(self._broker.start)
        # A broker keeps messages for sessions that it knows.
        await self._cable.mend()
        async with self.serving():
            pass

    async def stop(self) -> None:
        await self._cable.cut()
        await asyncio.to_thread(self._broker.stop)

    def integration(self) -> Integration:
        return integration(
            "mqtt", "mqtt", {"topic": TOPIC, "downlink_topic": DOWN},
            server=f"mqtt://127.0.0.1:{self._cable.port}", version=self._version,
            topics=["plant/#", "bare"], connect_timeout="2s",
        )  # fmt: skip

    async def send(self, *numbers: int) -> None:
        self._sent += len(numbers)
        if self._kept is not None:
            self._kept += numbers
            return
        await self._publish(*(("plant/d1/up", message(number)) for number in numbers))

    async def _publish(self, *messages: tuple[str, bytes]) -> None:
        async with aiomqtt.Client("127.0.0.1", self._broker.port) as client:
            for topic, body in messages:
                await client.publish(topic, body, qos=1)

    async def acknowledged(self) -> int:
        said = await asyncio.to_thread(self._broker.log)
        return said.count("Received PUBACK from funicular-acme-over-mqtt")

    async def cut(self) -> None:
        await self._cable.cut()
        await asyncio.to_thread(self._broker.stop, kill=True)
        self._kept = []

    async def mend(self) -> None:
        await asyncio.to_thread(self._broker.start)
        await self._cable.mend()
        kept, self._kept = self._kept or [], None
        self._sent -= len(kept)
        await self.send(*kept)

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "truncated":
                bodies = [TRUNCATED, b""]
            case "oversized":
                bodies = [b"x" * BODY_BYTES, b"[" * BODY_BYTES]
            case "wrong encoding":
                bodies = [NOT_UTF8]
            case _:
                topics = [f"plant/{name}/up" for name in HOSTILE] + ["plant//up", "bare", "plant/x"]
                await self._publish(*((topic, b"{}") for topic in topics))
                return len(topics)
        await self._publish(*(("plant/d1/up", body) for body in bodies))
        return len(bodies)

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        async with aiomqtt.Client("127.0.0.1", self._broker.port) as listener:
            await listener.subscribe("plant/+/set", qos=1)
            await handed_over(self.integration(), count, device_id="d1")
            async with asyncio.timeout(WAIT_S):
                heard = aiter(listener.messages)
                return [payload_of((await anext(heard)).payload) for _ in range(count)]


PEERS: Peers = {
    "mqtt, 3.1.1": partial(MqttPeer, "3.1.1"),
    "mqtt, 5": partial(MqttPeer, "5"),
}
