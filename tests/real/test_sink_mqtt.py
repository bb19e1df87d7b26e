"""Sinks over MQTT, and ThingsBoard's gateway API, against a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import orjson
import pytest

from pipeline.errors import RetryableError
from pipeline.model.delivery import Origin
from tests.real.servers import Certificates, Mosquitto
from tests.real.sink_servers import Mqtt, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    NOW_MS,
    POSTPONED,
    REFUSED,
    Cable,
    comes_back,
    deliveries,
    delivery,
    made,
    opened,
    verdicts,
)


@pytest.fixture
def port(sink_servers: SinkServers) -> int:
    return sink_servers[Mqtt].port


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that takes small messages alone, and not at every topic."""
    (tmp_path / "acl").write_text("topic readwrite open/#\n")
    lines = ("max_packet_size 500", f"acl_file {tmp_path}/acl")
    server = Mosquitto(tmp_path, lines=lines).start()
    yield server
    server.stop()


@asynccontextmanager
async def listening(port: int, topic: str) -> AsyncIterator[aiomqtt.Client]:
    client = aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client:
        await client.subscribe(topic, qos=1)
        yield client


async def heard(client: aiomqtt.Client, count: int) -> list[aiomqtt.Message]:
    messages: list[aiomqtt.Message] = []
    async with asyncio.timeout(10):
        async for message in client.messages:
            messages.append(message)
            if len(messages) == count:
                break
    return messages


def server(port: int) -> dict[str, Any]:
    return {"server": f"mqtt://127.0.0.1:{port}"}


async def test_messages_arrive_in_order_with_their_ids(port: int) -> None:
    """Past the broker's own window of unacknowledged messages all arrive, in order, with QoS 1,
    the delivery's id and the content type.
    """
    async with (
        listening(port, "order/#") as client,
        opened("mqtt", **server(port), topic="order/{device}/{type}") as transport,
    ):
        results = await transport.deliver(deliveries(90))
        messages = await heard(client, 90)

    assert verdicts(results) == [DELIVERED] * 90
    assert [orjson.loads(message.payload)["n"] for message in messages] == list(range(90))
    assert str(messages[1].topic) == "order/dev1/uplink"
    assert messages[1].qos == 1
    assert messages[1].properties.UserProperty == [("id", "d1")]
    assert messages[1].properties.ContentType == "application/json"


async def test_a_devices_name_stays_one_level(port: int) -> None:
    """A device with a separator or a wildcard in its name cannot reach another's topic."""
    async with (
        listening(port, "names/#") as client,
        opened("mqtt", **server(port), topic="names/{device}") as transport,
    ):
        await transport.deliver([delivery(1, "a/b+#%")])
        (message,) = await heard(client, 1)

    assert str(message.topic) == "names/a%2Fb%2B%23%25"


async def test_retained_and_expiring(port: int) -> None:
    """With `retain` the broker keeps the last message for those who come later."""
    config = {**server(port), "topic": "kept/{device}", "retain": True, "expiry": "1h"}
    async with opened("mqtt", **config) as transport:
        await transport.deliver([delivery(1), delivery(2)])
    async with listening(port, "kept/#") as client:
        (message,) = await heard(client, 1)

    assert message.retain
    assert orjson.loads(message.payload)["n"] == 2
    assert 3_500 < message.properties.MessageExpiryInterval <= 3_600


async def test_cloudevents_binary_is_in_user_properties(port: int) -> None:
    """CloudEvents' binding of MQTT 5: attributes are user properties, the body is the data."""
    async with (
        listening(port, "ce/#") as client,
        opened(
            "mqtt", **server(port), topic="ce/{device}", format="cloudevents_binary"
        ) as transport,
    ):
        await transport.deliver([delivery(1)])
        (message,) = await heard(client, 1)

    said = dict(message.properties.UserProperty)
    assert (said["specversion"], said["id"], said["type"]) == ("1.0", "d1", "funicular.uplink")


async def test_an_older_version(port: int) -> None:
    """With version 3.1.1 messages arrive, too, without properties."""
    async with (
        listening(port, "old/#") as client,
        opened("mqtt", **server(port), topic="old/{device}", version="3.1.1") as transport,
    ):
        assert verdicts(await transport.deliver(deliveries(30))) == [DELIVERED] * 30
        assert len(await heard(client, 30)) == 30


async def test_too_large_for_the_broker_is_the_messages_fault(strict: Mosquitto) -> None:
    """What the broker said it does not take is refused at once; the others arrive."""
    large = delivery(1, body={"text": "x" * 600})
    async with (
        listening(strict.port, "open/#") as client,
        opened("mqtt", **server(strict.port), topic="open/{device}") as transport,
    ):
        results = await transport.deliver([delivery(0), large, delivery(2)])
        messages = await heard(client, 2)

    assert verdicts(results) == [DELIVERED, REFUSED, DELIVERED]
    assert results[1].reason == "too_large"
    assert [orjson.loads(message.payload)["n"] for message in messages] == [0, 2]


async def test_a_topic_that_is_not_allowed_is_the_destinations_fault(strict: Mosquitto) -> None:
    """The broker's "not authorized" pauses the destination, and says so."""
    async with opened("mqtt", **server(strict.port), topic="shut/{device}") as transport:
        (result,) = await transport.deliver([delivery(0)])

    assert result.verdict is POSTPONED
    assert "does not let this user publish" in result.message


async def test_a_cut_cable(port: int) -> None:
    """With the connection gone a batch is postponed whole; it goes out once the way is there."""
    async with Cable(port) as cable, listening(port, "cut/#") as client:
        async with opened("mqtt", **server(cable.port), topic="cut/{device}") as transport:
            await transport.deliver(deliveries(5))
            await cable.cut()
            with pytest.raises(RetryableError):
                await transport.deliver(deliveries(5))
            await cable.mend()
            assert verdicts(await comes_back(transport, deliveries(5))) == [DELIVERED] * 5
        messages = await heard(client, 10)

    assert [orjson.loads(message.payload)["n"] for message in messages] == [*range(5), *range(5)]


async def test_nobody_there_at_the_start() -> None:
    """A broker that is not there is tried again: RetryableError, in words, without a secret."""
    config = {"server": "mqtt://127.0.0.1:1", "user": "u", "password": "geheim77", "topic": "t"}

    with pytest.raises(RetryableError) as found:
        await made("mqtt", **config).open()

    assert "geheim77" not in str(found.value)


async def test_a_broker_that_stands_still(tmp_path: Path) -> None:
    """A broker that says nothing more costs the timeout, and no more."""
    broker = Mosquitto(tmp_path).start()
    try:
        config = {**server(broker.port), "topic": "t", "timeout": 0.5, "connect_timeout": 0.5}
        transport = made("mqtt", **config)
        await transport.open()
        assert broker._process is not None
        broker._process.send_signal(19)
        started = asyncio.get_running_loop().time()
        with pytest.raises(RetryableError, match="no acknowledgement within"):
            await transport.deliver([delivery(1)])
        await transport.close()
        assert asyncio.get_running_loop().time() - started < 5
    finally:
        broker.stop(kill=True)


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_with_our_own_certificate(tmp_path: Path) -> None:
    """Over TLS with a CA and a client certificate of one's own; without it, or with another CA,
    the connection is refused.
    """
    certificates = Certificates(tmp_path)
    broker = Mosquitto(tmp_path, tls=certificates.folder).start()
    try:
        address = {"server": f"mqtts://localhost:{broker.port}", "topic": "t"}
        own = {
            "ca_file": certificates.path("ca.pem"),
            "certificate_file": certificates.path("client.pem"),
            "key_file": certificates.path("client.key"),
        }
        async with opened("mqtt", **address, tls=own) as transport:
            assert verdicts(await transport.deliver([delivery(1)])) == [DELIVERED]
        for tls in ({"ca_file": own["ca_file"]}, {}):
            with pytest.raises(RetryableError):
                await made("mqtt", **address, tls=tls, connect_timeout=3).open()
    finally:
        broker.stop()


async def test_thingsboards_gateway(port: int) -> None:
    """Telemetry and attributes are as ThingsBoard's Gateway MQTT API has them (a broker stands in
    for ThingsBoard, and takes whatever it gets).
    """
    whole = {
        "id": "m1",
        "type": "uplink",
        "time": "2026-09-21T14:13:20.000Z",
        "telemetry": {"temperature": 21.5},
        "metadata": {},
    }
    attributes = msgspec.structs.replace(
        delivery(3, body={"on": True}), origin=Origin(type="attributes_updated")
    )
    async with (
        listening(port, "v1/gateway/#") as client,
        opened("thingsboard", **server(port), token="gateway-token") as transport,
    ):
        results = await transport.deliver(
            [
                delivery(1, body=whole),
                delivery(2, body={"warm": True}),
                attributes,
                delivery(4, body={}),
            ]
        )
        messages = await heard(client, 3)

    assert verdicts(results) == [DELIVERED, DELIVERED, DELIVERED, REFUSED]
    said = [(str(message.topic), orjson.loads(message.payload)) for message in messages]
    assert said == [
        ("v1/gateway/telemetry", {"dev1": [{"ts": NOW_MS, "values": {"temperature": 21.5}}]}),
        ("v1/gateway/telemetry", {"dev1": [{"ts": NOW_MS + 2, "values": {"warm": True}}]}),
        ("v1/gateway/attributes", {"dev1": {"on": True}}),
    ]
