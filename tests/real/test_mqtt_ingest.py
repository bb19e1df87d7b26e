"""Integrations over MQTT, against a real broker: nothing lost, nothing acknowledged too early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from structlog.testing import capture_logs

from pipeline.errors import StorageFullError
from pipeline.integrations.dialect import OverMqtt, dialects
from pipeline.metrics import Registry
from pipeline.rulebook.book import Integration
from pipeline.sink.transport import Verdict
from tests.real.servers import Certificates, Mosquitto
from tests.real.source_work import (
    NOW_MS,
    WITHIN_S,
    HeldLog,
    Process,
    downlink,
    handover,
    integration,
    running,
    until,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "azure_iot_hub": {"role": "hub"},
    "mqtt": {"topic": "plant/{device_id}/{kind}", "downlink_topic": "plant/{device_id}/set"},
}
CLIENT = "funicular-acme-over-mqtt"  # the name that an integration has by itself
EUI = "0a0b0c0d0e0f0102"
OVER_MQTT = sorted(name for name, dialect in dialects().items() if isinstance(dialect, OverMqtt))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield server
    server.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path).start()
    yield server
    server.stop()


def over(dialect: str, port: int, **connection: Any) -> Integration:
    given = {"server": f"mqtt://127.0.0.1:{port}", **connection}
    return integration(dialect, "mqtt", OPTIONS.get(dialect), **given)


async def publish(port: int, *messages: tuple[str, bytes], qos: int = 1, **more: Any) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=qos, **more)


def numbered(first: int, count: int, device: str = "d1") -> list[tuple[str, bytes]]:
    return [(f"plant/{device}/up", orjson.dumps({"n": n})) for n in range(first, first + count)]


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("name", OVER_MQTT)
def test_a_sample_arrives(broker: Mosquitto, name: str, version: str) -> None:
    """What a network server publishes becomes the record that its HTTP integration would make."""

    async def work() -> None:
        log = HeldLog()
        chosen = over(name, broker.port, version=version, client_id=f"{name}-{version}")
        dialect: Any = chosen.dialect
        device = EUI if chosen.device_template == "{dev_eui}" else "1A2B3C"
        sample = dialect.sample(device, 7, b"\x01\x02", NOW_MS)
        async with running(Process(log, chosen)):
            await publish(broker.port, (dialect.sample_topic(device, chosen.options), sample.body))
            await until(lambda: log.records)
        (record,) = log.records
        assert (record.topic, record.value) == ("uplink.received", sample.body)
        assert record.key.startswith("acme/")
        assert record.key.endswith(device)
        assert record.headers["ce_integration"] == chosen.name

    run(work)


def test_what_comes_while_we_are_away_waits(own_broker: Mosquitto) -> None:
    """The session outlives the worker: the broker keeps what is published meanwhile."""

    async def work() -> None:
        chosen = over("mqtt", own_broker.port)
        async with running(Process(HeldLog(), chosen)):
            pass
        await publish(own_broker.port, *numbered(0, 20))
        log = HeldLog()
        async with running(Process(log, chosen)):
            await until(lambda: len(log.records) >= 20)
        assert log.numbers() == list(range(20))

    run(work)


def test_a_log_that_takes_nothing_holds_the_broker_back(own_broker: Mosquitto) -> None:
    """While the disk is full nothing is lost or acknowledged; then it goes on, in order."""

    async def work() -> None:
        log = HeldLog()
        log.fail = StorageFullError("no room")
        process = Process(log, over("mqtt", own_broker.port))
        async with running(process):
            await publish(own_broker.port, *numbered(0, 300))
            await until(lambda: process.status().errors >= 2)
            assert "no room" in process.status().last_error
            log.fail = None
            await until(lambda: len(log.records) >= 300)
        assert log.numbers() == list(range(300))

    run(work)


def test_workers_share_a_subscription(own_broker: Mosquitto) -> None:
    """Two workers of one share get each message once between them."""

    async def work() -> None:
        chosen = over("mqtt", own_broker.port, version="5", share="funicular")
        logs = [HeldLog(), HeldLog()]
        async with running(*(Process(log, chosen, worker=f"w{n}") for n, log in enumerate(logs))):
            await publish(own_broker.port, *numbered(0, 100))
            await until(lambda: sum(len(log.records) for log in logs) >= 100)
        assert sorted(logs[0].numbers() + logs[1].numbers()) == list(range(100))
        assert all(log.records for log in logs)

    run(work)


def test_what_is_no_devices_is_passed_over(broker: Mosquitto) -> None:
    """A filter that takes more than the dialect knows brings what is counted and told once; so is
    what the broker retained from before.
    """

    async def work() -> None:
        log = HeldLog()
        await publish(broker.port, ("v3/app/devices/dev9/up", b"{}"), retain=True)
        process = Process(log, over("tts_v3", broker.port, topics=["v3/#"]))
        with capture_logs() as logs:
            async with running(process):
                push = ("v3/app/devices/dev9/down/push", b"{}")
                await publish(broker.port, push, push, ("v3/app/devices/dev9/join", b"{}"))
                await until(lambda: log.records)
                await until(lambda: process.status().passed_over == 3)
        assert log.bodies() == [b"{}"]
        assert len([each for each in logs if "passed over" in each["event"]]) == 2
        await publish(broker.port, ("v3/app/devices/dev9/up", b""), retain=True)

    run(work)


def test_a_lasting_fault_is_logged_once(tmp_path: Path) -> None:
    """A broker that is not there is tried again and again, and told of once; so is its coming."""

    async def work() -> None:
        server = Mosquitto(tmp_path)
        process = Process(HeldLog(), over("mqtt", server.port))
        with capture_logs() as logs:
            await process.sources.refresh()
            try:
                await until(lambda: process.status().errors >= 4)
                assert process.status().state == "lost"
                await asyncio.to_thread(server.start)
                await until(lambda: process.status().state == "connected")
            finally:
                await process.sources.stop()
                await asyncio.to_thread(server.stop)
        told = [each["event"] for each in logs]
        assert told.count("an integration is not connected") == 1
        assert told.count("an integration is connected") == 1
        metrics = Registry()
        process.sources.flush(metrics)

    run(work)


def test_a_silent_connection_is_noticed(broker: Mosquitto) -> None:
    """Where messages are due and none comes, the connection counts as dead and is made anew."""

    async def work() -> None:
        chosen = over("mqtt", broker.port, client_id="silent", silence_max="1s")
        process = Process(HeldLog(), chosen)
        async with running(process):
            await until(lambda: process.status().connects >= 2)
            assert "no message for 1 s" in process.status().last_error

    run(work)


def test_an_edit_of_the_rules_moves_the_connection(broker: Mosquitto) -> None:
    """A changed integration connects anew, an unchanged one stays, a removed one ends."""

    async def work() -> None:
        log = HeldLog()
        chosen = over("mqtt", broker.port, client_id="edited")
        process = Process(log, chosen)
        async with running(process):
            await process.sources.refresh()
            assert process.status().connects == 1
            chosen = replace(chosen, metadata={"site": "north"})
            process.book = {chosen.name: chosen}
            await process.sources.refresh()
            await until(lambda: process.status().connects == 1)
            await publish(broker.port, *numbered(0, 1))
            await until(lambda: log.records)
            process.book = {}
            await process.sources.refresh()
            assert process.sources.status() == []

    run(work)


# paho leaves a socket to the garbage collector when its handshake fails.
@pytest.mark.filterwarnings("ignore:.*SSLSocket.*:pytest.PytestUnraisableExceptionWarning")
def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    """A broker behind a CA of one's own takes those with a certificate, and only those; the
    fault says which certificate it is.
    """

    async def work() -> None:
        certificates = Certificates(tmp_path)
        broker = await asyncio.to_thread(Mosquitto(tmp_path, tls=tmp_path).start)
        given = {"server": f"mqtts://127.0.0.1:{broker.port}", "connect_timeout": "1s"}
        own = {"ca_file": certificates.path("ca.pem")}
        proven = {"certificate_file": certificates.path("client.pem"),
                  "key_file": certificates.path("client.key")}  # fmt: skip
        try:
            good = Process(HeldLog(), over("mqtt", 0, **given, tls={**own, **proven}))
            async with running(good):
                assert good.status().state == "connected"
            faults = [
                ({}, "certificate verify failed"),
                (own, "the connection to the broker failed"),
                ({"ca_file": "/nowhere.pem"}, "a certificate of the connection cannot be used"),
            ]
            for tls, fault in faults:
                bad = Process(HeldLog(), over("mqtt", 0, **given, tls=tls))
                await bad.sources.refresh()
                await until(lambda each=bad: each.status().errors)
                assert fault in bad.status().last_error
                await bad.sources.stop()
        finally:
            await asyncio.to_thread(broker.stop)

    run(work)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("name", OVER_MQTT)
def test_downlinks_arrive_in_order(broker: Mosquitto, name: str, version: str) -> None:
    """Each downlink is published where the network server listens, in order, with its reference."""

    async def work() -> None:
        chosen = over(name, broker.port, version=version)
        dialect: Any = chosen.dialect
        device = EUI if chosen.device_template == "{dev_eui}" else "1A2B3C"
        asked = [downlink(n, application_id="app1", device_id=device) for n in range(5)]
        made = [dialect.publication(each.downlink, each.link, chosen.options) for each in asked]
        transport = handover(chosen)
        async with aiomqtt.Client("127.0.0.1", broker.port) as listener:
            for topic in {each.topic for each in made}:
                await listener.subscribe(topic, qos=1)
            await transport.open()
            for delivery, each in zip(asked, made, strict=True):
                (result,) = await transport.deliver([delivery])
                assert result.verdict is Verdict.DELIVERED
                assert result.detail.get("reference", "") == each.reference
            await transport.close()
            heard = aiter(listener.messages)
            async with asyncio.timeout(WITHIN_S):
                payloads = [(await anext(heard)).payload for _ in made]
        assert payloads == [each.payload for each in made]

    run(work)


def test_a_downlink_waits_for_its_broker(tmp_path: Path) -> None:
    """While the broker is away the downlink is postponed; it goes out when it is back."""

    async def work() -> None:
        server = await asyncio.to_thread(Mosquitto(tmp_path).start)
        transport = handover(over("mqtt", server.port))
        delivery = downlink(1, device_id="d1")
        await transport.open()
        await asyncio.to_thread(server.stop, kill=True)
        (result,) = await transport.deliver([delivery])
        assert result.verdict is Verdict.POSTPONED
        (result,) = await transport.deliver([delivery])
        assert (result.verdict, result.reason) == (Verdict.POSTPONED, "connect")
        await asyncio.to_thread(server.start)
        (result,) = await transport.deliver([delivery])
        assert result.verdict is Verdict.DELIVERED
        await transport.close()
        await asyncio.to_thread(server.stop)

    run(work)
