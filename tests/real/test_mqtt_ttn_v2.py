"""The Things Network v2's Data API on a real broker: downlinks out, their events in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import orjson
import pytest

from pipeline.settings import Settings
from pipeline.wiring import Funicular
from tests.real.servers import Mosquitto

WITHIN_S = 30.0
TOPIC = "acme/devices/room-1"
UP = {
    "app_id": "acme", "dev_id": "room-1", "hardware_serial": "0004A30B001C0530", "port": 1,
    "counter": 1, "payload_raw": "AQ==", "metadata": {"time": "2026-11-21T13:00:00Z"},
}  # fmt: skip
DOWNLINKS = "/api/v1/tenants/acme/devices/acme:room-1/downlinks"
Step = tuple[str, bytes, str, dict[str, Any]]
LIFE: list[Step] = [
    ("down/scheduled", b"null", "accepted", {}),
    ("down/sent", b'{"gateway_id":"gw","config":{"counter":7}}', "accepted",
     {"transmitted": True, "gateway_id": "gw", "counter": 7}),
    ("down/acks", b"null", "acknowledged", {"transmitted": True}),
]  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def rules(tmp_path: Path, broker: Mosquitto) -> Path:
    folder = tmp_path / "rules"
    (folder / "integrations").mkdir(parents=True)
    (folder / "funicular.yaml").write_text("tenant: acme\n")
    (folder / "integrations/ttn.yaml").write_text(
        f"dialect: ttn_v2\ntransport: mqtt\nconnection: {{server: 'mqtt://127.0.0.1:{broker.port}'}}\n"
    )
    return folder


class Network:
    """The Things Network v2 as the broker's clients see it, and an application at our API."""

    def __init__(self, server: aiomqtt.Client, http: httpx.AsyncClient) -> None:
        self.server, self.http = server, http

    async def until(self, true: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(WITHIN_S):
            while True:
                if found := await true():
                    return found
                await asyncio.sleep(0.05)

    async def heard(self) -> None:
        """Let the device say something, and wait until it is known."""
        await self.server.publish(f"{TOPIC}/up", orjson.dumps(UP), qos=1)
        await self.until(self._known)

    async def _known(self) -> bool:
        return (await self.http.get(DOWNLINKS.removesuffix("/downlinks"))).status_code == 200

    async def downlink(self) -> str:
        """Ask for a downlink; return its id when the network has it."""
        asked = {"payload": "AQI=", "f_port": 10, "confirmed": True}
        answer = await self.http.post(DOWNLINKS, json=asked)
        assert answer.status_code == 202, answer.text
        async with asyncio.timeout(WITHIN_S):
            message = await anext(aiter(self.server.messages))
        said = orjson.loads(bytes(message.payload))
        assert (said["port"], said["payload_raw"], said["confirmed"]) == (10, "AQI=", True)
        downlink: str = answer.json()["id"]
        await self.stands(downlink, "sent", {})
        return downlink

    async def event(self, event: str, payload: bytes) -> None:
        await self.server.publish(f"{TOPIC}/events/{event}", payload, qos=1)

    async def stands(self, downlink: str, state: str, detail: dict[str, Any]) -> Any:
        """Return the downlink when it stands there, with these details."""

        async def there() -> Any:
            found = (await self.http.get(f"{DOWNLINKS}/{downlink}")).json()
            same = found["state"] == state
            return found if same and detail.items() <= found.get("detail", {}).items() else None

        return await self.until(there)


def on_the_network(
    rules: Path, broker: Mosquitto, work: Callable[[Network], Awaitable[None]]
) -> None:
    async def main() -> None:
        settings = Settings(rules=(rules,), data=rules.parent / "data", port=0, watch=False)
        pipeline = Funicular(settings)
        await pipeline.start()
        assert pipeline.door is not None
        try:
            async with (
                aiomqtt.Client("127.0.0.1", broker.port) as server,
                httpx.AsyncClient(base_url=pipeline.door.address) as http,
            ):
                await server.subscribe(f"{TOPIC}/down", qos=1)
                network = Network(server, http)

                async def connected() -> bool:
                    answer = await http.get("/api/v1/tenants/acme/integrations")
                    return bool(answer.json()["integrations"][0]["state"] == "connected")

                await network.until(connected)
                await network.heard()
                await work(network)
        finally:
            await pipeline.stop()

    asyncio.run(main())


def test_events_move_a_downlink_on(rules: Path, broker: Mosquitto) -> None:
    """Scheduled, sent and acknowledged, each by its topic, though v2 names no downlink."""

    async def work(network: Network) -> None:
        downlink = await network.downlink()
        for event, payload, state, detail in LIFE:
            await network.event(event, payload)
            await network.stands(downlink, state, detail)

    on_the_network(rules, broker, work)


def test_errors_fail_a_downlink(rules: Path, broker: Mosquitto) -> None:
    """`down/errors` fails the last one that was sent, with v2's own words; the one before it stays
    as it was, and garbage on the topic changes nothing.
    """

    async def work(network: Network) -> None:
        first = await network.downlink()
        await network.event("down/acks", b"null")
        await network.stands(first, "acknowledged", {})
        second = await network.downlink()
        await network.event("down/errors", b"nonsense")
        await network.event("down/errors", b'{"error":"no session"}')
        failed = await network.stands(second, "failed", {"message": "no session"})
        assert failed["reason"] == "network_server"
        await network.stands(first, "acknowledged", {})
        letters = await network.http.get("/api/v1/tenants/acme/dead-letters")
        assert [one["stage"] for one in letters.json()["dead_letters"]] == ["convert"]

    on_the_network(rules, broker, work)
