"""The real program on a real broker: an MQTT connection that one ingest worker alone may have moves
when that worker is killed, or stopped where it stands.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.topics import UPLINK_RECEIVED
from tests.kafka.brokers import Brokers
from tests.kafka.program_work import committed
from tests.process.program import Program
from tests.real.servers import Mosquitto

WITHIN_S = 60.0
BARN = """
dialect: mqtt
transport: mqtt
connection: {{server: 'mqtt://127.0.0.1:{port}'}}
options: {{topic: "plant/{{device_id}}/up"}}
"""


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


class Load:
    """Publishes numbers, one after the other, until it is told to end."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._task = asyncio.ensure_future(self._run(port))

    async def _run(self, port: int) -> None:
        async with aiomqtt.Client("127.0.0.1", port) as client:
            while True:
                body = orjson.dumps({"n": self.count})
                await client.publish("plant/d1/up", body, qos=1)
                self.count += 1
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        self._task.cancel()
        await asyncio.wait({self._task})
        return self.count


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await true()):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.1)
    return found


async def state(program: Program, session: aiohttp.ClientSession) -> Any:
    address = f"{program.url}/api/v1/tenants/acme/integrations"
    async with session.get(address, timeout=aiohttp.ClientTimeout(2)) as answer:
        (only,) = (await answer.json())["integrations"]
    return only


@pytest.mark.timeout(300)
async def test_one_worker_has_it_and_another_goes_on(
    kafka: Brokers, prefix: str, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """One of two workers is connected, the other says who is. When the owner is killed, and when
    the next one is stopped where it stands, the other goes on within seconds, nothing is lost, and
    who was stopped stands by when it goes on.
    """
    rules = tmp_path / "rules"
    (rules / "integrations").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: acme\n")
    (rules / "integrations/barn.yaml").write_text(BARN.format(port=mosquitto.port))
    url = f"kafka://{kafka.bootstrap}?prefix={prefix}&partitions=3&replication=1"
    env = {"FUNICULAR_LOG": url}
    made = await asyncio.to_thread(
        CliRunner().invoke, main, ["topics", "create", "-r", str(rules)], env=env
    )
    assert made.exit_code == 0, made.output
    command = ("worker", "ingest")
    with (
        Program(rules, tmp_path / "one", env, command) as one,
        Program(rules, tmp_path / "two", env, command) as two,
    ):
        async with aiohttp.ClientSession() as session:
            for each in (one, two):
                await each.ready(session, 60)

            async def owner(*among: Program) -> Program | None:
                states = {id(each): (await state(each, session))["state"] for each in among}
                having = [each for each in among if states[id(each)] == "connected"]
                return having[0] if len(having) == 1 else None

            first = await until(lambda: owner(one, two))
            other = two if first is one else one
            said = await until(lambda: note_of(other, session))
            assert said.endswith(f"-{first.port} has it")
            load = Load(mosquitto.port)
            await asyncio.sleep(1)

            await asyncio.to_thread(first.kill)
            await until(lambda: owner(other))
            first.start()
            await first.ready(session, 60)
            await until(lambda: owner(one, two))
            await asyncio.sleep(1)

            holder = await until(lambda: owner(one, two))
            spare = two if holder is one else one
            holder.process.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: owner(spare))
                await asyncio.sleep(1)
            finally:
                holder.process.send_signal(signal.SIGCONT)
            await until(lambda: owner(one, two))
            count = await load.end()

            async def all_there() -> bool:
                found = await asyncio.to_thread(
                    committed, kafka.bootstrap, prefix + UPLINK_RECEIVED
                )
                return {orjson.loads(value)["n"] for _, value in found} >= {*range(count)}

            await until(all_there)
        for each in (one, two):
            assert await asyncio.to_thread(each.stop) == 0, each.said()
    assert count > 200


async def note_of(program: Program, session: aiohttp.ClientSession) -> str:
    """Return who has the connection, once the worker that stands by was told."""
    found = await state(program, session)
    note: str = found["note"] if found["state"] == "standby" else ""
    return note if note.endswith("has it") and note.startswith("worker") else ""
