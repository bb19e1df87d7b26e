"""Integrations over AMQP 1.0, against a real RabbitMQ with its plug-in for it, and against a server
that plays Azure's side: nothing lost, nothing settled too early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import proton
import pytest

from pipeline.clients.amqp1 import connected
from pipeline.errors import StorageFullError
from pipeline.ingest.source import Outside
from pipeline.integrations.dialect import OverMqtt, dialects
from pipeline.model.http import SOURCE_KEY
from pipeline.model.record import HTTP_HEADERS, HTTP_QUERY
from pipeline.rehearse.senders.sender import sender_of
from pipeline.rulebook.book import Integration
from pipeline.sink.transport import Verdict
from tests.real.azure_server import Azure
from tests.real.sink_servers import Rabbitmq
from tests.real.source_work import (
    NOW_MS,
    HeldLog,
    Leases,
    Process,
    downlink,
    handover,
    integration,
    running,
    until,
)

EUI = "0a0b0c0d0e0f0102"
BY_FIELD = {"device_field": "device"}
OPTIONS: dict[str, dict[str, Any]] = {
    "http": BY_FIELD,
    "mqtt": {"topic": "plant/{device_id}/{kind}", "downlink_topic": "plant/{device_id}/set"},
}
OVER_MQTT = sorted(name for name, dialect in dialects().items() if isinstance(dialect, OverMqtt))


@pytest.fixture(scope="module")
def broker() -> Iterator[Rabbitmq]:
    server = Rabbitmq().start()
    yield server
    server.remove()


@pytest.fixture
def azure() -> Iterator[Azure]:
    server = Azure().start()
    yield server
    server.stop()


def at_rabbit(port: int, queue: str, dialect: str = "http", **more: Any) -> Integration:
    given = {
        "server": f"amqp://127.0.0.1:{port}", "user": "guest", "password": "guest",
        "address": f"/queue/{queue}",
    }  # fmt: skip
    return integration(dialect, "amqp1", OPTIONS.get(dialect, {}), **{**given, **more})


def at_azure(port: int, address: str, dialect: str = "http", **more: Any) -> Integration:
    given = {"server": f"amqp://127.0.0.1:{port}", "address": address, "connect_timeout": 3}
    options = {"device_header": "iothub-connection-device-id"} if address == "hub" else BY_FIELD
    return integration(dialect, "amqp1", options, **{**given, **more})


def numbered(number: int) -> bytes:
    return orjson.dumps({"device": "d1", "n": number})


async def send(made: Integration, *messages: bytes | proton.Message) -> None:
    """Send to the address that an integration reads."""
    async with connected(made.connection, "test") as connection:
        for each in messages:
            message = each
            if isinstance(each, bytes):
                message = proton.Message(body=each, inferred=True, durable=True)
            assert isinstance(message, proton.Message)
            outcome = await connection.send(made.connection.address, message.encode())
            assert outcome.accepted


@pytest.mark.parametrize("name", [*OVER_MQTT, "http", "helium"])
async def test_a_sample_arrives(broker: Rabbitmq, name: str) -> None:
    """What `funicular send` puts at the address becomes the record of its device."""
    log = HeldLog()
    chosen = at_rabbit(broker.port, f"sample-{name}", name)
    device = EUI if chosen.device_template == "{dev_eui}" else "1A2B3C"
    dialect: Any = chosen.dialect
    sample = dialect.sample(device, 7, b"\x01\x02", NOW_MS)
    async with running(Process(log, chosen)):
        await sender_of("amqp1")(chosen, device, sample)
        await until(lambda: log.records)
    (record,) = log.records
    assert (record.topic, record.value) == ("uplink.received", sample.body)
    assert record.key == f"acme/{record.key[5:]}"
    assert record.key.endswith(device)


async def test_bodies_of_all_kinds(azure: Azure) -> None:
    """Bytes and text come as they are, values of the protocol as JSON; properties of the message
    as headers and in the query.
    """
    log = HeldLog()
    bodies: list[Any] = [
        b"\x00\xff", "text", {"device": "d1", "t": 1.5, "deep": [1, None, {"b": b"\x01"}]}, [1, 2],
        True, None, 7, "\u202e",
    ]  # fmt: skip
    for body in bodies:
        azure.put_message(body, inferred=isinstance(body, bytes))
    last = proton.Message(body=b"{}", inferred=True, id="m1", subject="s", correlation_id="c",
                          properties={"X-A": 1, "Authorization": "secret"})  # fmt: skip
    last.content_type = proton.symbol("application/json")
    azure.put_raw(last.encode())
    async with running(Process(log, at_azure(azure.port, "queue"))):
        await until(lambda: len(log.records) == len(bodies) + 1)
    assert log.bodies() == [
        b"\x00\xff", b"text", b'{"device":"d1","t":1.5,"deep":[1,null,{"b":"\\u0001"}]}', b"[1,2]",
        b"true", b"", b"7", "\u202e".encode(), b"{}",
    ]  # fmt: skip
    headers = orjson.loads(log.records[-1].headers[HTTP_HEADERS])
    assert headers == {
        "x-a": "1", "message-id": "m1", "correlation-id": "c", "content-type": "application/json",
    }  # fmt: skip
    query = orjson.loads(log.records[-1].headers[HTTP_QUERY])
    assert query == {"address": "queue", "subject": "s"}
    assert log.records[2].key == "acme/d1"


async def test_a_frozen_server_is_noticed(broker: Rabbitmq) -> None:
    """A server that stands still with its connections open is left after its heartbeat."""
    process = Process(HeldLog(), at_rabbit(broker.port, "frozen", heartbeat=2, connect_timeout=2))
    async with running(process):
        broker.pause()
        try:
            await until(lambda: process.status().state == "lost")
        finally:
            broker.resume()
        await until(lambda: process.status().state == "connected")


async def test_a_log_that_takes_nothing_holds_the_server_back(broker: Rabbitmq) -> None:
    """While the disk is full nothing is lost or settled; then it goes on, in order."""
    log = HeldLog()
    log.fail = StorageFullError("no room")
    chosen = at_rabbit(broker.port, "full", credit=50)
    process = Process(log, chosen)
    async with running(process):
        await send(chosen, *(numbered(n) for n in range(300)))
        await until(lambda: process.status().errors >= 2)
        assert log.asked <= 50 * process.status().errors
        log.fail = None
        await until(lambda: len(log.records) >= 300)
    assert log.numbers() == list(range(300))


async def test_tls_with_certificates_of_both_sides(broker: Rabbitmq) -> None:
    """A server behind a CA of one's own takes those with a certificate, and only those."""
    folder: Path = broker.tls.folder
    address = {"server": f"amqps://localhost:{broker.tls_port}"}
    own = {
        "ca_file": f"{folder}/ca.pem",
        "certificate_file": f"{folder}/client.pem",
        "key_file": f"{folder}/client.key",
    }
    log = HeldLog()
    chosen = at_rabbit(0, "tls", **address, tls=own)
    async with running(Process(log, chosen)):
        await send(chosen, numbered(1))
        await until(lambda: log.records)
    # Without a user the certificate's name is the user (EXTERNAL).
    as_user = {**own, "certificate_file": f"{folder}/guest.pem", "key_file": f"{folder}/guest.key"}
    chosen = at_rabbit(0, "tls", **address, tls=as_user, user="", password=None)
    async with running(Process(log, chosen)):
        await send(chosen, numbered(2))
        await until(lambda: log.numbers() == [1, 2])
    for tls in ({"ca_file": own["ca_file"]}, {}, {"ca_file": "/nowhere.pem"}):
        bad = Process(HeldLog(), at_rabbit(0, "tls", **address, tls=tls))
        await bad.sources.refresh()
        await until(lambda each=bad: each.status().errors)
        await bad.sources.stop()


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"user": "guest", "password": "geheim77"}, "may this user connect?"),
        ({"address": "/nonsense/absent"}, "Attach rejected"),
        ({"server": "amqp://127.0.0.1:1"}, "cannot be reached"),
    ],
)
async def test_what_the_server_refuses_is_said(
    broker: Rabbitmq, connection: dict[str, Any], says: str
) -> None:
    """A wrong password, address or port is told, without the password."""
    process = Process(HeldLog(), at_rabbit(broker.port, "refused", **connection))
    await process.sources.refresh()
    await until(lambda: process.status().errors)
    error = process.status().last_error
    await process.sources.stop()
    assert says in error
    assert "geheim77" not in error


async def test_garbage_never_stops_the_door(azure: Azure) -> None:
    """What is no AMQP message, too long or broken becomes a dead letter with its beginning; what
    comes after it arrives, and nothing comes again.
    """
    log = HeldLog()
    process = Process(log, at_azure(azure.port, "queue", message_bytes_max=20_000))
    good = proton.Message(body=numbered(1), inferred=True).encode()
    two = b"\x00\x53\x75\xa0\x0a" + numbered(2)[:10] + b"\x00\x53\x75\xa0" + bytes(
        [len(numbered(2)) - 10]) + numbered(2)[10:]  # fmt: skip
    bad = [
        b"garbage", b"\xff" * 50, good[:-5], b"\x00\x53\x77" + b"\xc0\x05\x01" * 300,
        proton.Message(body=b"x" * 100_000, inferred=True).encode(),
    ]  # fmt: skip
    for data in bad:
        azure.put_raw(data)
    refused = [b"", b"[" * 5_000, b"\xff\xfe", b"x" * 15_000]
    for data in refused:
        azure.put_message(data)
    azure.put_raw(two)
    azure.put_raw(good)
    async with running(process):
        await until(lambda: numbered(1) in log.bodies())
        await until(lambda: not azure.queue)
    reasons = [letter.reason for letter in log.letters()]
    assert sorted(reasons) == ["body_length"] * 2 + ["not_amqp"] * 4
    taken = [record.value for record in log.records if record.topic == "uplink.received"]
    assert taken == [*refused[:3], numbered(2), numbered(1)]
    assert azure.sent == len(bad) + len(refused) + 2


async def test_an_event_hub_goes_on_where_it_was(azure: Azure) -> None:
    """All partitions are found and read, each from its place, which was kept with its messages;
    after a restart and a cut nothing comes twice, and nothing is missing.
    """
    leases = Leases()
    log = leases.log
    hub = {"event_hub": {"start": "earliest"}}
    for number in range(20):
        azure.put_event(number % 2, orjson.dumps({"n": number}))
    async with running(Process(log, at_azure(azure.port, "hub", **hub), outside=Outside(leases))):
        await until(lambda: len(log.records) >= 20)
        for number in range(20, 40):
            azure.put_event(number % 2, orjson.dumps({"n": number}))
        await until(lambda: len(log.records) >= 40)
        await asyncio.to_thread(azure.stop)
        for number in range(40, 60):
            azure.put_event(number % 2, orjson.dumps({"n": number}))
        await asyncio.to_thread(azure.start)
        await until(lambda: len(log.records) >= 60)
    for number in range(60, 70):
        azure.put_event(number % 2, orjson.dumps({"n": number}))
    async with running(Process(log, at_azure(azure.port, "hub", **hub), outside=Outside(leases))):
        await until(lambda: len(log.records) >= 70)
    numbers = log.numbers()
    assert sorted(numbers) == list(range(70))
    for partition in (0, 1):
        assert [n for n in numbers if n % 2 == partition] == list(range(partition, 70, 2))
    assert leases.cursors == {"acme/over-http": {"offsets": {"0": "3500", "1": "3500"}}}
    assert azure.selectors[:2] == [f"{n}: amqp.annotation.x-opt-offset > '-1'" for n in (0, 1)]
    assert azure.selectors[-2:] == [f"{n}: amqp.annotation.x-opt-offset > '3000'" for n in (0, 1)]


async def test_an_event_has_its_device_and_its_place(azure: Azure) -> None:
    """Where IoT Hub names the device its annotation does so here; an event is known again by its
    partition and number.
    """
    leases = Leases()
    hub = {"event_hub": {"partitions": [1], "start": "earliest"}}
    azure.put_event(1, b'{"t": 1}')
    async with running(
        Process(leases.log, at_azure(azure.port, "hub", **hub), outside=Outside(leases))
    ):
        await until(lambda: leases.log.records)
    (record,) = leases.log.records
    assert record.key == "acme/d1"
    headers = orjson.loads(record.headers[HTTP_HEADERS])
    place = "hub/ConsumerGroups/$Default/Partitions/1"
    assert headers[SOURCE_KEY] == f"127.0.0.1/{place}/0"
    assert headers["x-opt-offset"] == "100"
    assert orjson.loads(record.headers[HTTP_QUERY]) == {"address": place, "partition": "1"}


async def test_a_new_hub_begins_at_its_latest(azure: Azure) -> None:
    """Without a place only what comes from now on is read, and that is said."""
    azure.put_event(0, b'{"n": 0}')
    leases = Leases()
    process = Process(
        leases.log, at_azure(azure.port, "hub", event_hub={}), outside=Outside(leases)
    )
    async with running(process):
        assert process.status().note == "partitions 0, 1 begin at their latest"
        azure.put_event(0, b'{"n": 1}')
        await until(lambda: leases.log.records)
    assert leases.log.numbers() == [1]


async def test_a_missing_hub_is_said(azure: Azure) -> None:
    """A hub or partition that is not there is told by the server's own words."""
    for hub, says in (({}, "refuses a request (404)"), ({"partitions": [9]}, "no such address")):
        chosen = at_azure(azure.port, "hub" if hub else "absent", event_hub=hub)
        bad = Process(HeldLog(), chosen, outside=Outside(Leases()))
        await bad.sources.refresh()
        await until(lambda each=bad: each.status().errors)
        assert says in bad.status().last_error
        await bad.sources.stop()


@pytest.mark.parametrize("renewed", [True, False])
async def test_locks_are_held_while_the_log_takes_nothing(renewed: bool) -> None:
    """A message of Service Bus is locked as long as it waits here, so that it is not sent again;
    without renewal it is.
    """
    azure = await asyncio.to_thread(Azure(lock_s=2.0).start)
    try:
        log = HeldLog()
        log.open.clear()
        more = {"lock_renewal": "1s"} if renewed else {}
        async with running(Process(log, at_azure(azure.port, "queue", **more))):
            azure.put_message(numbered(1))
            await until(lambda: log.asked)
            azure.put_message(numbered(2))  # waits behind the first one, locked too
            await until(lambda: azure.renewals >= 6 or azure.sent >= 4)
            assert (azure.sent == 2) is renewed
            log.open.set()
            await until(lambda: not azure.queue)
        assert list(dict.fromkeys(log.numbers())) == [1, 2]
        assert (len(log.records) == 2) is renewed
    finally:
        await asyncio.to_thread(azure.stop)


async def test_downlinks_go_to_devices_by_the_service(azure: Azure) -> None:
    """A downlink is sent to the service's address, `to` its device, in order; what the service
    rejects is refused, what it releases waits, and a name that leads elsewhere is refused.
    """
    way = {
        "address": "/messages/devicebound",
        "to": "/devices/{device_id}/messages/devicebound",
        "properties": {"iothub-ack": "full"},
    }
    transport = handover(at_azure(azure.port, "hub", event_hub={}, downlinks=way))
    await transport.open()
    for number in range(5):
        (result,) = await transport.deliver([downlink(number)])
        assert result.verdict is Verdict.DELIVERED, result
    assert [message.id for message in azure.devicebound] == [f"l{n}" for n in range(5)]
    one = azure.devicebound[1]
    assert one.address == "/devices/d1/messages/devicebound"
    assert (one.properties, one.durable) == ({"iothub-ack": "full"}, True)
    assert orjson.loads(bytes(one.body))["payload"] == "AQ=="
    azure.answers = "reject"
    (result,) = await transport.deliver([downlink(6)])
    assert (result.verdict, result.reason) == (Verdict.REFUSED, "rejected")
    azure.answers = "release"
    (result,) = await transport.deliver([downlink(7)])
    assert result.verdict is Verdict.POSTPONED
    (result,) = await transport.deliver([downlink(8, device="d1/messages")])
    assert (result.verdict, result.reason) == (Verdict.REFUSED, "no_link")
    azure.answers = "accept"
    await asyncio.to_thread(azure.stop)
    (result,) = await transport.deliver([downlink(9)])
    assert result.verdict is Verdict.POSTPONED
    await asyncio.to_thread(azure.start)
    (result,) = await transport.deliver([downlink(9)])
    assert result.verdict is Verdict.DELIVERED
    await transport.close()


async def test_downlinks_of_topics_arrive_in_order(broker: Rabbitmq) -> None:
    """A dialect of topics sends them with the topic as subject, where another reads them."""
    # At another server than what is read, which is not there.
    way = {
        "server": f"amqp://127.0.0.1:{broker.port}", "user": "guest", "password": "guest",
        "address": "/queue/down",
    }  # fmt: skip
    down = at_rabbit(1, "up", "tts_v3", downlinks=way)
    transport = handover(down)
    link = {"application_id": "app1", "device_id": "d1"}
    for number in range(5):
        (result,) = await transport.deliver([downlink(number, **link)])
        assert result.verdict is Verdict.DELIVERED, result
    await transport.close()
    log = HeldLog()
    async with running(Process(log, at_rabbit(broker.port, "down"))):
        await until(lambda: len(log.records) == 5)
    payloads = [orjson.loads(body)["downlinks"][0]["frm_payload"] for body in log.bodies()]
    assert payloads == ["AA==", "AQ==", "Ag==", "Aw==", "BA=="]
    query = orjson.loads(log.records[0].headers[HTTP_QUERY])
    assert query["subject"] == "v3/app1/devices/d1/down/push"
