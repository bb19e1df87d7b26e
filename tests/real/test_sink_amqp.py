"""The sink `amqp` against a real RabbitMQ, one for all tests: it takes ten seconds to start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from pipeline.errors import RetryableError
from tests.real.sink_servers import Rabbitmq, SinkServers
from tests.real.sink_work import (
    DELIVERED,
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


def url(port: int) -> str:
    return f"amqp://guest:guest@127.0.0.1:{port}/"


@pytest.fixture
def port(sink_servers: SinkServers) -> int:
    return sink_servers[Rabbitmq].port


@pytest.fixture
async def channel(port: int) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(url(port))
    yield await connection.channel()
    await connection.close()


async def bound(
    channel: AbstractChannel, exchange: str, key: str = "#", **arguments: Any
) -> AbstractQueue:
    """Return a queue that is bound to a new exchange."""
    declared = await channel.declare_exchange(exchange, "topic", durable=True)
    queue = await channel.declare_queue(exclusive=True, arguments=arguments or None)
    await queue.bind(declared, key)
    return queue


async def taken(queue: AbstractQueue, count: int) -> list[AbstractIncomingMessage]:
    messages: list[AbstractIncomingMessage] = []
    async with asyncio.timeout(10):
        while len(messages) < count:
            message = await queue.get(no_ack=True, fail=False)
            if message is not None:
                messages.append(message)
    return messages


async def test_messages_arrive_in_order(port: int, channel: AbstractChannel) -> None:
    """All arrive in order, persistent, with the delivery's id, its device and the content type."""
    queue = await bound(channel, "order")
    config = {"url": url(port), "exchange": "order", "routing_key": "{type}.{device}"}
    async with opened("amqp", **config) as transport:
        results = await transport.deliver(
            [delivery(n, "a.b" if n % 2 else "c") for n in range(100)]
        )
    messages = await taken(queue, 100)

    assert verdicts(results) == [DELIVERED] * 100
    assert [message.message_id for message in messages] == [f"d{n}" for n in range(100)]
    one = messages[1]
    assert one.routing_key == "uplink.a%2Eb"
    assert one.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert (one.content_type, one.headers["device"]) == ("application/json", "a.b")
    assert orjson.loads(one.body) == {"n": 1, "é": [None, 1.5]}


async def test_what_no_queue_is_bound_for_waits(port: int, channel: AbstractChannel) -> None:
    """A message that would be thrown away is postponed, in words, and goes out once a queue is
    there; of the same device nothing passes it.
    """
    queue = await bound(channel, "unbound", "dev1")
    config = {"url": url(port), "exchange": "unbound"}
    async with opened("amqp", **config) as transport:
        results = await transport.deliver([delivery(0, "dev0"), delivery(1, "dev1")])
        assert verdicts(results) == [POSTPONED, DELIVERED]
        assert "no queue is bound for the routing key `dev0`" in results[0].message
        await queue.bind("unbound", "dev0")
        assert verdicts(await transport.deliver([delivery(0, "dev0")])) == [DELIVERED]
    assert [message.message_id for message in await taken(queue, 2)] == ["d1", "d0"]


async def test_a_full_queue_is_the_destinations_fault(port: int, channel: AbstractChannel) -> None:
    """A queue that rejects what is over its length answers with a nack: postponed."""
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await bound(channel, "full", **limits)
    async with opened("amqp", url=url(port), exchange="full") as transport:
        results = [(await transport.deliver([delivery(n)]))[0] for n in range(6)]
        postponed = [one for one in results if one.verdict is POSTPONED]
        assert postponed
        assert "a queue is full" in postponed[-1].message
        await queue.purge()
        assert verdicts(await comes_back(transport, [delivery(7)])) == [DELIVERED]


async def test_the_exchange_is_declared_or_must_be_there(
    port: int, channel: AbstractChannel
) -> None:
    """With `declare` it is made; without it a missing one is said."""
    with pytest.raises(RetryableError, match="no exchange 'absent'"):
        await made("amqp", url=url(port), exchange="absent").open()
    config = {"url": url(port), "exchange": "fresh", "declare": "fanout", "mandatory": False}
    async with opened("amqp", **config) as transport:
        assert verdicts(await transport.deliver([delivery(0)])) == [DELIVERED]
    assert (await channel.get_exchange("fresh")).name == "fresh"


async def test_the_default_exchange_leads_to_queues(port: int, channel: AbstractChannel) -> None:
    """Without an exchange the routing key names a queue; CloudEvents' attributes are headers."""
    queue = await channel.declare_queue("direct", auto_delete=True)
    config = {"url": url(port), "routing_key": "direct", "format": "cloudevents_binary"}
    async with opened("amqp", **config) as transport:
        await transport.deliver([delivery(1)])
    (message,) = await taken(queue, 1)

    assert message.headers["cloudEvents:id"] == "d1"


async def test_too_large_is_refused(port: int, channel: AbstractChannel) -> None:
    """What is over `bytes_max` is the message's fault; the others arrive."""
    await bound(channel, "large")
    config = {"url": url(port), "exchange": "large", "bytes_max": 100}
    async with opened("amqp", **config) as transport:
        results = await transport.deliver([delivery(0), delivery(1, body={"t": "x" * 200})])

    assert verdicts(results) == [DELIVERED, REFUSED]


async def test_a_cut_cable(port: int, channel: AbstractChannel) -> None:
    """With the connection gone a batch is postponed whole, and goes out later, in order."""
    queue = await bound(channel, "cable")
    # Two blocks, as the second needs the first one's port.
    async with Cable(port) as cable:  # noqa: SIM117 - as said above
        async with opened("amqp", url=url(cable.port), exchange="cable") as transport:
            await transport.deliver(deliveries(5))
            await cable.cut()
            with pytest.raises(RetryableError):
                await transport.deliver(deliveries(5))
            await cable.mend()
            assert verdicts(await comes_back(transport, deliveries(5))) == [DELIVERED] * 5
    numbers = [orjson.loads(message.body)["n"] for message in await taken(queue, 10)]
    assert numbers == [*range(5), *range(5)]


async def test_no_secret_is_said(port: int) -> None:
    """A wrong password, and nobody there: RetryableError without the password."""
    for address in (f"127.0.0.1:{port}/", "127.0.0.1:1/"):
        with pytest.raises(RetryableError) as found:
            await made("amqp", url=f"amqp://guest:geheim77@{address}").open()
        assert "geheim77" not in str(found.value)


async def test_tls_with_our_own_certificate(sink_servers: SinkServers) -> None:
    """Over TLS with a CA and a client certificate of one's own; without it it is refused."""
    server = sink_servers[Rabbitmq]
    folder: Path = server.tls.folder
    address = {"url": f"amqps://guest:guest@localhost:{server.tls_port}/", "timeout": 5}
    own = {
        "ca_file": f"{folder}/ca.pem",
        "certificate_file": f"{folder}/client.pem",
        "key_file": f"{folder}/client.key",
    }
    async with opened("amqp", **address, tls=own, mandatory=False) as transport:
        assert verdicts(await transport.deliver([delivery(1)])) == [DELIVERED]
    for tls in ({"ca_file": own["ca_file"]}, {}):
        with pytest.raises(RetryableError):
            await made("amqp", **address, tls=tls).open()
