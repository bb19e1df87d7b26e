"""Cloud platforms over MQTT, played by a real broker: certificates, tokens, shadows, twins."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from structlog.testing import capture_logs

from pipeline.sink.transport import Verdict
from tests.real.servers import Certificates, Mosquitto
from tests.real.source_work import HeldLog, Process, downlink, handover, integration, running, until

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


async def publish(port: int, topic: str, document: Any) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.publish(topic, orjson.dumps(document), qos=1)


# paho leaves a socket to the garbage collector when its handshake fails.
@pytest.mark.filterwarnings("ignore:.*SSLSocket.*:pytest.PytestUnraisableExceptionWarning")
def test_aws_by_certificate(tmp_path: Path) -> None:
    """A thing's telemetry and shadow come in, and its shadow's wishes go out, by certificates."""

    async def work() -> None:
        certificates = Certificates(tmp_path)
        server = await asyncio.to_thread(Mosquitto(tmp_path, tls=tmp_path).start)
        tls = {"ca_file": certificates.path("ca.pem"),
               "certificate_file": certificates.path("client.pem"),
               "key_file": certificates.path("client.key")}  # fmt: skip
        made = integration("aws_iot", "mqtt", server=f"mqtts://127.0.0.1:{server.port}", tls=tls)
        log = HeldLog()
        own = aiomqtt.TLSParameters(ca_certs=tls["ca_file"], certfile=tls["certificate_file"],
                                    keyfile=tls["key_file"])  # fmt: skip
        try:
            async with (
                running(Process(log, made)),
                aiomqtt.Client("127.0.0.1", server.port, tls_params=own) as thing,
            ):
                shadow = {"current": {"state": {"reported": {"on": True}}, "version": 1}}
                await thing.publish("dt/plant/pump/telemetry", b'{"t":1}', qos=1)
                topic = "$aws/things/pump/shadow/update"
                await thing.publish(f"{topic}/documents", orjson.dumps(shadow), qos=1)
                await until(lambda: len(log.records) == 2)
                assert [record.key for record in log.records] == ["acme/pump"] * 2
                await thing.subscribe(topic, qos=1)
                transport = handover(made)
                await transport.open()
                for number in range(3):
                    (result,) = await transport.deliver([downlink(number, "pump")])
                    assert result.verdict is Verdict.DELIVERED
                await transport.close()
                heard = aiter(thing.messages)
                async with asyncio.timeout(20):
                    wishes = [orjson.loads(bytes((await anext(heard)).payload)) for _ in range(3)]
        finally:
            await asyncio.to_thread(server.stop)
        told = [wish["state"]["desired"]["payload"] for wish in wishes]
        assert told == ["AA==", "AQ==", "Ag=="]

    run(work)


def test_azure_by_a_token_that_is_renewed(broker: Mosquitto) -> None:
    """The user and password are those of the device; before a token expires the connection is
    made anew with another one, no fault is told, and nothing is lost.
    """

    async def work() -> None:
        made = integration(
            "azure_iot_hub", "mqtt", {"device_id": "gate"},
            server=f"mqtt://127.0.0.1:{broker.port}", client_id="gate",
            sas={"key": KEY, "lifetime": "10s"},
        )  # fmt: skip
        log = HeldLog()
        process = Process(log, made)
        async with running(process):
            number = 0
            while process.status().connects < 2:
                where = "devices/gate/messages/devicebound/%24.ct=application%2Fjson"
                await publish(broker.port, where, {"n": number})
                number += 1
                await asyncio.sleep(0.2)
            await publish(broker.port, "$iothub/twin/PATCH/properties/desired/?$version=2",
                          {"n": number})  # fmt: skip
            await until(lambda: len(log.records) > number)
            assert process.status().errors == 0
        assert log.numbers() == list(range(number + 1))
        assert "u'127.0.0.1/gate/?api-version=2021-04-12'" in broker.log()

    run(work)


def test_watson_as_an_application(broker: Mosquitto) -> None:
    """Events and status come in, a command goes out, under the application's name."""

    async def work() -> None:
        made = integration(
            "watson_iot", "mqtt", server=f"mqtt://127.0.0.1:{broker.port}",
            client_id="a:org:funicular", user="a-org-key", password="token",
        )  # fmt: skip
        log = HeldLog()
        async with running(Process(log, made)):
            where = "iot-2/type/pumps/id/p1"
            await publish(broker.port, f"{where}/evt/flow/fmt/json", {"d": {"n": 1}})
            await publish(broker.port, f"{where}/mon", {"Action": "Connect"})
            await until(lambda: len(log.records) == 2)
            assert [record.key for record in log.records] == ["acme/pumps:p1"] * 2
            transport = handover(made)
            await transport.open()
            async with aiomqtt.Client("127.0.0.1", broker.port) as device:
                await device.subscribe(f"{where}/cmd/#", qos=1)
                delivery = downlink(1, "pumps:p1", application_id="pumps", device_id="p1")
                (result,) = await transport.deliver([delivery])
                assert result.verdict is Verdict.DELIVERED
                async with asyncio.timeout(20):
                    message = await anext(aiter(device.messages))
            await transport.close()
            assert message.topic.value == f"{where}/cmd/downlink/fmt/bin"
            assert message.payload == b"\x01"
        assert "a:org:funicular" in broker.log()

    run(work)


def test_a_frozen_broker_is_noticed(tmp_path: Path) -> None:
    """A broker that is there and says nothing counts as lost within one and a half keepalives,
    is told of once, and is connected to again when it goes on.
    """

    async def work() -> None:
        keepalive_s = 3.0
        server = await asyncio.to_thread(Mosquitto(tmp_path).start)
        assert server._process is not None
        made = integration("mqtt", "mqtt", {"topic": "plant/{device_id}/up"},
                           server=f"mqtt://127.0.0.1:{server.port}", keepalive=keepalive_s,
                           connect_timeout="1s")  # fmt: skip
        log = HeldLog()
        process = Process(log, made)
        loop = asyncio.get_running_loop()
        with capture_logs() as logs:
            async with running(process):
                os.kill(server._process.pid, signal.SIGSTOP)
                frozen_s = loop.time()
                await until(lambda: process.status().state == "lost")
                noticed_s = loop.time() - frozen_s
                await until(lambda: process.status().errors >= 4)
                os.kill(server._process.pid, signal.SIGCONT)
                await until(lambda: process.status().state == "connected")
                await publish(server.port, "plant/d1/up", {"n": 1})
                await until(lambda: log.records)
        await asyncio.to_thread(server.stop)
        told = [
            each["error"] for each in logs if each["event"] == "an integration is not connected"
        ]
        assert noticed_s <= 1.5 * keepalive_s + 1
        assert len(told) == len(set(told)) <= 2, "how it was lost, and why it is not back"

    run(work)
