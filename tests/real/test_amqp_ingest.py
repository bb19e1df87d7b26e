"""Integrations over AMQP 0-9-1, against a real RabbitMQ: nothing lost, nothing acknowledged too
early.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiormq
import orjson
import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from structlog.testing import capture_logs

from pipeline.errors import StorageFullError
from pipeline.integrations.dialect import OverMqtt, dialects
from pipeline.model.record import HTTP_HEADERS, HTTP_QUERY
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_broker import AmqpSourceConfig
from pipeline.sink.transport import Verdict
from tests.real.sink_servers import Rabbitmq
from tests.real.sink_work import Cable
from tests.real.source_work import (
    NOW_MS,
    HeldLog,
    Process,
    downlink,
    handover,
    integration,
    running,
    until,
)

EUI = "0a0b0c0d0e0f0102"
OPTIONS: dict[str, dict[str, Any]] = {
    "mqtt": {"topic": "plant/{device_id}/{kind}", "downlink_topic": "plant/{device_id}/set"}
}
BY_WORD = {"device_query": "device_id"}
OVER_MQTT = sorted(
    name
    for name, dialect in dialects().items()
    if isinstance(dialect, OverMqtt) and not AmqpSourceConfig.carries(dialect)
)


@pytest.fixture(scope="module")
def broker() -> Iterator[Rabbitmq]:
    server = Rabbitmq().start()
    yield server
    server.remove()


@pytest.fixture
async def channel(broker: Rabbitmq) -> AsyncIterator[AbstractChannel]:
    async with channel_of(broker.port) as opened:
        yield opened


@asynccontextmanager
async def channel_of(port: int) -> AsyncIterator[AbstractChannel]:
    connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
    try:
        yield await connection.channel()
    finally:
        await connection.close()


def over(port: int, dialect: str, queue: str, **connection: Any) -> Integration:
    given: dict[str, Any] = {"server": f"amqp://127.0.0.1:{port}", "queue": queue}
    if dialect == "http":
        # Keys of its own, so that one test's messages are not another's.
        given["bindings"] = [{"exchange": "amq.topic"}]
        given["routing_key"] = f"{queue}.{{device_id}}.{{kind}}"
    options = connection.pop("options", OPTIONS.get(dialect, BY_WORD if dialect == "http" else {}))
    return integration(dialect, "amqp", options, **{**given, **connection})


async def publish(channel: AbstractChannel, queue: str, *numbers: int) -> None:
    for number in numbers:
        await channel.basic_publish(
            orjson.dumps({"n": number}),
            exchange="amq.topic",
            routing_key=f"{queue}.d1.up",
            properties=Basic.Properties(delivery_mode=2),
        )


async def waiting(channel: AbstractChannel, queue: str) -> int:
    """Return how many messages wait in a queue for whoever reads next."""
    declared = await channel.queue_declare(queue, passive=True)
    count = declared.message_count
    assert count is not None
    return count


@pytest.mark.parametrize("name", [*OVER_MQTT, "http"])
async def test_a_sample_arrives(broker: Rabbitmq, channel: AbstractChannel, name: str) -> None:
    """What a network server publishes becomes the record that its HTTP integration would make; a
    key's words are its topic's levels.
    """
    log = HeldLog()
    chosen = over(broker.port, name, f"sample-{name}")
    dialect: Any = chosen.dialect
    device = EUI if chosen.device_template == "{dev_eui}" else "1A2B3C"
    sample = dialect.sample(device, 7, b"\x01\x02", NOW_MS)
    key = f"sample-http.{device}.up"
    if name in OVER_MQTT:
        key = dialect.sample_topic(device, chosen.options).replace("/", ".")
    exchange = "ttn.handler" if name == "ttn_v2" else "amq.topic"
    await channel.exchange_declare("ttn.handler", exchange_type="topic", durable=True)
    async with running(Process(log, chosen)):
        await channel.basic_publish(sample.body, exchange=exchange, routing_key=key)
        await until(lambda: log.records)
    (record,) = log.records
    assert (record.topic, record.value) == ("uplink.received", sample.body)
    assert record.key.startswith("acme/")
    assert record.key.endswith(device)
    assert record.headers["ce_integration"] == chosen.name


async def test_a_message_is_named_by_its_key_or_header(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """The dialect `http` has the key's words in its query, and the message's headers and
    properties as its headers; both can name the device and the repeat.
    """
    log = HeldLog()
    options = {"device_header": "X-Device", "repeat_header": "message-id"}
    chosen = over(broker.port, "http", "by-header", options=options)
    properties = Basic.Properties(
        headers={
            "X-Device": "d7",
            "count": 3,
            "nested": {"a": [1, bytearray(b"\xff")]},
            "Cookie": "secret",
        },
        message_id="m1",
        content_type="application/json",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
    )
    async with running(Process(log, chosen)):
        await channel.basic_publish(
            b'{"t": 1}', exchange="amq.topic", routing_key="by-header.dX.up", properties=properties
        )
        await until(lambda: log.records)
    (record,) = log.records
    assert record.key == "acme/d7"
    query = orjson.loads(record.headers[HTTP_QUERY])
    assert query == {
        "device_id": "dX", "kind": "up", "exchange": "amq.topic", "routing_key": "by-header.dX.up",
    }  # fmt: skip
    headers = orjson.loads(record.headers[HTTP_HEADERS])
    assert headers == {
        "x-device": "d7", "count": "3", "nested": '{"a":[1,"ff"]}', "message-id": "m1",
        "content-type": "application/json", "timestamp": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip


async def test_a_killed_broker_keeps_what_it_confirmed() -> None:
    """What a broker confirmed before it was killed arrives when it is back, also what came
    while nobody read; the fault and its end are logged once.
    """
    server = await asyncio.to_thread(Rabbitmq().start)
    log = HeldLog()
    process = Process(log, over(server.port, "http", "killed", connect_timeout="2s"))
    try:
        with capture_logs() as logs:
            async with running(process):
                async with channel_of(server.port) as channel:
                    await publish(channel, "killed", *range(20))
                    await until(lambda: len(log.records) >= 20)
                await asyncio.to_thread(server.stop)
                await until(lambda: process.status().state == "lost")
                await until(lambda: process.status().errors >= 3)
                await asyncio.to_thread(server.start)
                await until(lambda: process.status().state == "connected", 60)
                async with channel_of(server.port) as channel:
                    await publish(channel, "killed", *range(20, 40))
                await until(lambda: {*range(40)} <= {*log.numbers()})
        told = [each["event"] for each in logs]
        assert told.count("an integration is connected") == 2
        assert told.count("an integration is not connected") <= 3
    finally:
        await asyncio.to_thread(server.remove)


async def test_a_frozen_broker_is_noticed(broker: Rabbitmq) -> None:
    """A broker that stands still with its connections open is left after its heartbeats."""
    process = Process(
        HeldLog(), over(broker.port, "http", "frozen", heartbeat=2, connect_timeout=2)
    )
    async with running(process):
        broker.pause()
        try:
            await until(lambda: process.status().state == "lost")
        finally:
            broker.resume()
        await until(lambda: process.status().state == "connected")


async def test_what_comes_while_we_are_away_waits(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """The queue outlives the worker: the broker keeps what is published meanwhile."""
    chosen = over(broker.port, "http", "away", queue_type="quorum")
    async with running(Process(HeldLog(), chosen)):
        pass
    await publish(channel, "away", *range(20))
    log = HeldLog()
    async with running(Process(log, chosen)):
        await until(lambda: len(log.records) >= 20)
    assert log.numbers() == list(range(20))


async def test_a_log_that_takes_nothing_holds_the_broker_back(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """While the disk is full nothing is lost or acknowledged, and no more than the prefetch is
    taken; then it goes on, in order.
    """
    log = HeldLog()
    log.fail = StorageFullError("no room")
    process = Process(log, over(broker.port, "http", "full", prefetch=50))
    async with running(process):
        await publish(channel, "full", *range(300))
        await until(lambda: process.status().errors >= 2)
        assert "no room" in process.status().last_error
        assert await waiting(channel, "full") == 250
        log.fail = None
        await until(lambda: len(log.records) >= 300)
    assert log.numbers() == list(range(300))


@pytest.mark.parametrize(
    ("properties", "device"),
    [
        (b"\x00\x40" + b"\xff" * 8, b"d1"),  # a timestamp that no calendar has
        (b"\x20\x00\x00\x00\x00\x05\x02\xff\xfet\x01", b"d1"),  # a header's name is no UTF-8
        (b"\x00\x80\x02\xff\xfe", b"d1"),  # nor is a message id
        (b"\x00\x00", b"\xff\xfe"),  # nor the routing key
    ],
    ids=["timestamp", "header", "message_id", "routing_key"],
)  # fmt: skip
async def test_what_the_library_cannot_read_is_read_mended(
    broker: Rabbitmq, channel: AbstractChannel, properties: bytes, device: bytes
) -> None:
    """A message whose properties end the library's connection is not sent again for ever: it is
    taken without them, in its place.
    """
    log = HeldLog()
    queue = f"poison-{properties.hex()[:8]}-{len(device)}"
    process = Process(log, over(broker.port, "http", queue))
    await publish_raw(broker.port, queue, properties, device)
    async with running(process):
        await until(lambda: log.records)
        await publish(channel, queue, 1)
        await until(lambda: len(log.records) >= 2)
    assert log.bodies() == [b'{"n":0}', b'{"n":1}']
    assert await waiting(channel, queue) == 0


async def publish_raw(port: int, queue: str, properties: bytes, device: bytes) -> None:
    """Publish `{"n":0}` with these flags and properties, byte by byte, to a queue that is made
    for it.
    """
    async with channel_of(port) as channel:
        await channel.queue_declare(queue, durable=True)
        await channel.queue_bind(queue, "amq.topic", f"{queue}.#")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    def frame(kind: int, channel: int, payload: bytes) -> None:
        writer.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def method(channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)

    async def answer() -> bytes:
        head = await reader.readexactly(7)
        return await reader.readexactly(struct.unpack(">BHI", head)[2] + 1)

    def text(value: bytes) -> bytes:
        return bytes([len(value)]) + value

    writer.write(b"AMQP\x00\x00\x09\x01")
    await answer()
    login = b"\x00guest\x00guest"
    method(0, 10, 11, struct.pack(">I", 0) + text(b"PLAIN")
           + struct.pack(">I", len(login)) + login + text(b"en_US"))  # fmt: skip
    await answer()
    method(0, 10, 31, struct.pack(">HIH", 100, 131_072, 0))
    method(0, 10, 40, text(b"/") + b"\x00\x00")
    await answer()
    method(1, 20, 10, text(b""))
    await answer()
    method(1, 85, 10, b"\x00")
    await answer()
    body, key = b'{"n":0}', queue.encode() + b"." + device + b".up"
    method(1, 60, 40, b"\x00\x00" + text(b"amq.topic") + text(key) + b"\x00")
    frame(2, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties)
    frame(3, 1, body)
    confirmed = await answer()
    writer.close()
    assert confirmed.startswith(struct.pack(">HH", 60, 80)), confirmed


async def test_a_queue_with_other_properties_is_said(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """A queue that is there otherwise is not touched; the fault says what to do, and it can be
    taken as it is.
    """
    await channel.queue_declare("otherwise", durable=False)
    bad = Process(HeldLog(), over(broker.port, "http", "otherwise"))
    await bad.sources.refresh()
    await until(lambda: bad.status().errors)
    assert "take it as it is with `declare: false`" in bad.status().last_error
    await bad.sources.stop()

    log = HeldLog()
    async with running(Process(log, over(broker.port, "http", "otherwise", declare=False))):
        await publish(channel, "otherwise", 1)
        await until(lambda: log.records)


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"bindings": [{"exchange": "absent"}]}, "no exchange 'absent'"),
        ({"declare": False}, "no queue"),
        ({"server": "amqp://127.0.0.1:{port}/absent"}, "virtual host `absent` there"),
        ({"user": "guest", "password": "geheim77"}, "ACCESS_REFUSED"),
    ],
)
async def test_what_the_broker_refuses_is_said(
    broker: Rabbitmq, connection: dict[str, Any], says: str
) -> None:
    """A missing exchange, queue or virtual host and a wrong password are told, without the
    password.
    """
    given = {name: value.replace("{port}", str(broker.port)) if isinstance(value, str) else value
             for name, value in connection.items()}  # fmt: skip
    process = Process(HeldLog(), over(broker.port, "http", f"refused-{len(says)}", **given))
    await process.sources.refresh()
    await until(lambda: process.status().errors)
    error = process.status().last_error
    await process.sources.stop()
    assert says in error
    assert "geheim77" not in error


async def test_a_deleted_queue_is_noticed(broker: Rabbitmq, channel: AbstractChannel) -> None:
    """A queue that somebody deletes is said, made again and bound again."""
    log = HeldLog()
    process = Process(log, over(broker.port, "http", "deleted"))
    async with running(process):
        await channel.queue_delete("deleted")
        await until(lambda: process.status().connects == 2)
        assert "was it deleted?" in process.status().last_error
        await publish(channel, "deleted", 1)
        await until(lambda: log.records)


async def test_a_silent_connection_is_noticed(broker: Rabbitmq) -> None:
    """Where messages are due and none comes, the connection counts as dead and is made anew."""
    process = Process(HeldLog(), over(broker.port, "http", "silent", silence_max="1s"))
    async with running(process):
        await until(lambda: process.status().connects >= 2)
        assert "no message for 1 s" in process.status().last_error


async def test_tls_with_certificates_of_both_sides(broker: Rabbitmq) -> None:
    """A broker behind a CA of one's own takes those with a certificate, and only those."""
    folder: Path = broker.tls.folder
    address = {"server": f"amqps://localhost:{broker.tls_port}"}
    own = {
        "ca_file": f"{folder}/ca.pem",
        "certificate_file": f"{folder}/client.pem",
        "key_file": f"{folder}/client.key",
    }
    who = {"user": "guest", "password": "guest"}
    good = Process(HeldLog(), over(0, "http", "tls", **address, tls=own, **who))
    async with running(good):
        assert good.status().state == "connected"
    for tls in ({"ca_file": own["ca_file"]}, {}, {"ca_file": "/nowhere.pem"}):
        bad = Process(HeldLog(), over(0, "http", "tls", **address, tls=tls, **who))
        await bad.sources.refresh()
        await until(lambda each=bad: each.status().errors)
        await bad.sources.stop()


async def test_a_certificate_alone_proves_who_we_are(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """Without a user the certificate's name is the user (EXTERNAL), both ways; one that names
    nobody there is refused, and that is said.
    """
    folder: Path = broker.tls.folder
    given: dict[str, Any] = {
        "server": f"amqps://localhost:{broker.tls_port}",
        "downlinks": {"exchange": "amq.topic", "routing_key": "external-down.{device_id}"},
        "tls": {
            "ca_file": f"{folder}/ca.pem",
            "certificate_file": f"{folder}/guest.pem",
            "key_file": f"{folder}/guest.key",
        },
    }
    log = HeldLog()
    async with running(Process(log, over(0, "http", "external", **given))):
        await publish(channel, "external", 1)
        await until(lambda: log.records)
    assert log.numbers() == [1]
    queue = (await channel.queue_declare(exclusive=True)).queue or ""
    await channel.queue_bind(queue, "amq.topic", "external-down.d1")
    transport = handover(over(0, "http", "external", **given))
    (result,) = await transport.deliver([downlink(1, device_id="d1")])
    await transport.close()
    assert result.verdict is Verdict.DELIVERED, result
    assert await waiting(channel, queue) == 1

    nobody = {"certificate_file": f"{folder}/client.pem", "key_file": f"{folder}/client.key"}
    given["tls"] = {**given["tls"], **nobody}
    bad = Process(HeldLog(), over(0, "http", "external", **given))
    await bad.sources.refresh()
    await until(lambda: bad.status().errors)
    assert "ACCESS_REFUSED" in bad.status().last_error
    await bad.sources.stop()


@pytest.mark.parametrize("name", ["http", "mqtt", "ttn_v2", "tts_v3"])
async def test_downlinks_arrive_in_order(
    broker: Rabbitmq, channel: AbstractChannel, name: str
) -> None:
    """Each downlink is published where the network server listens, in order, persistent, with
    its id.
    """
    link = {"application_id": "app1", "device_id": "d1"}
    more = {"downlinks": {"exchange": "amq.topic", "routing_key": "plant.{device_id}.down"}}
    chosen = over(broker.port, name, "unused", **(more if name == "http" else {}))
    dialect: Any = chosen.dialect
    exchange, key = "amq.topic", "plant.d1.down"
    if name != "http":
        delivery = downlink(0, **link)
        made = dialect.publication(delivery.downlink, delivery.link, chosen.options)
        exchange = "ttn.handler" if name == "ttn_v2" else "amq.topic"
        key = made.topic.replace("/", ".")
    await channel.exchange_declare("ttn.handler", exchange_type="topic", durable=True)
    queue = (await channel.queue_declare(exclusive=True)).queue or ""
    await channel.queue_bind(queue, exchange, key)
    transport = handover(chosen)
    await transport.open()
    for number in range(5):
        (result,) = await transport.deliver([downlink(number, **link)])
        assert result.verdict is Verdict.DELIVERED, result
    await transport.close()
    heard = [await channel.basic_get(queue, no_ack=True) for _ in range(5)]
    assert [each.header.properties.message_id for each in heard] == [f"l{n}" for n in range(5)]
    assert {each.header.properties.delivery_mode for each in heard} == {2}
    if name == "ttn_v2":
        assert orjson.loads(heard[1].body) == {
            "port": 1, "confirmed": False, "schedule": "last", "payload_raw": "AQ==",
        }  # fmt: skip


async def test_a_downlink_waits_for_queue_and_broker(
    broker: Rabbitmq, channel: AbstractChannel
) -> None:
    """Without a bound queue, and without a broker, the downlink is postponed; a name that would
    lead to another key is refused.
    """
    way = {"exchange": "amq.topic", "routing_key": "waits.{device_id}.down"}
    async with Cable(broker.port) as cable:
        transport = handover(over(cable.port, "http", "unused", downlinks=way))
        (result,) = await transport.deliver([downlink(1)])
        assert (result.verdict, result.reason) == (Verdict.POSTPONED, "unroutable")
        queue = (await channel.queue_declare(exclusive=True)).queue or ""
        await channel.queue_bind(queue, "amq.topic", "waits.#")
        (result,) = await transport.deliver([downlink(1)])
        assert result.verdict is Verdict.DELIVERED
        (result,) = await transport.deliver([downlink(1, device_id="d1.down")])
        assert (result.verdict, result.reason) == (Verdict.REFUSED, "no_link")
        await cable.cut()
        (result,) = await transport.deliver([downlink(2)])
        assert result.verdict is Verdict.POSTPONED
        await cable.mend()
        (result,) = await transport.deliver([downlink(2)])
        assert result.verdict is Verdict.DELIVERED
        await transport.close()
    assert await waiting(channel, queue) == 2
