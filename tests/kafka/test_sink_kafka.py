"""The sink `kafka` against a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.errors import RetryableError
from pipeline.stream.partitioner import partition_of
from tests.real.sink_servers import Kafka, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    REFUSED,
    deliveries,
    delivery,
    made,
    opened,
    verdicts,
)

pytestmark = pytest.mark.kafka


@pytest.fixture
def kafka(sink_servers: SinkServers) -> Kafka:
    return sink_servers[Kafka]


async def records(kafka: Kafka, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
    )
    found: list[Any] = []
    async with asyncio.timeout(20), consumer:
        while len(found) < count:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += batch
    return found


async def test_records_are_keyed_and_in_order(kafka: Kafka) -> None:
    """Each device's records are in order on the partition that Java's partitioner gives its key,
    with id and content type as headers.
    """
    topic = kafka.topic("sink-order")
    async with opened("kafka", servers=kafka.bootstrap, topic=topic) as transport:
        results = await transport.deliver(deliveries(200, devices=4))
    found = await records(kafka, topic, 200)

    assert verdicts(results) == [DELIVERED] * 200
    for device in range(4):
        own = [record for record in found if record.key == f"dev{device}".encode()]
        assert [orjson.loads(record.value)["n"] for record in own] == [*range(device, 200, 4)]
        assert {record.partition for record in own} == {partition_of(f"dev{device}", 2)}
    one = next(record for record in found if orjson.loads(record.value)["n"] == 7)
    assert dict(one.headers) == {"content-type": b"application/json", "id": b"d7"}


async def test_cloudevents_binary_is_in_headers(kafka: Kafka) -> None:
    """CloudEvents' binding of Kafka: attributes are headers `ce_…`."""
    topic = kafka.topic("sink-ce")
    config = {"servers": kafka.bootstrap, "topic": topic, "format": "cloudevents_binary"}
    async with opened("kafka", **config, compression="gzip") as transport:
        await transport.deliver([delivery(1)])
    (record,) = await records(kafka, topic, 1)

    headers = dict(record.headers)
    assert (headers["ce_id"], headers["ce_specversion"]) == (b"d1", b"1.0")


async def test_too_large_is_the_messages_fault(kafka: Kafka) -> None:
    """What is over `bytes_max`, and what the topic itself refuses, are refused at once; the others
    arrive.
    """
    topic = kafka.topic("sink-large", **{"max.message.bytes": "2000"})
    large = delivery(1, "big", body={"t": "x" * 5_000})
    async with opened("kafka", servers=kafka.bootstrap, topic=topic) as transport:
        assert verdicts(await transport.deliver([delivery(0)])) == [DELIVERED]
        assert verdicts(await transport.deliver([large])) == [REFUSED]
        assert verdicts(await transport.deliver([delivery(2)])) == [DELIVERED]
    config = {"servers": kafka.bootstrap, "topic": topic, "bytes_max": 1_100}
    async with opened("kafka", **config) as transport:
        results = await transport.deliver([large, delivery(3)])

    assert verdicts(results) == [REFUSED, DELIVERED]
    assert results[0].reason == "too_large"


async def test_a_missing_topic_is_said(kafka: Kafka) -> None:
    """A topic that the brokers do not have pauses the destination, and is named."""
    config = {"servers": kafka.bootstrap, "topic": "sink-absent", "timeout": 2}
    async with opened("kafka", **config) as transport:
        with pytest.raises(RetryableError, match="no topic `sink-absent`: create it"):
            await transport.deliver([delivery(0)])


async def test_nobody_there() -> None:
    """Brokers that are not there: RetryableError, in words without a secret."""
    sasl = {"user": "u", "password": "geheim77"}
    with pytest.raises(RetryableError) as found:
        await made("kafka", servers="127.0.0.1:1", topic="t", timeout=2, sasl=sasl).open()

    assert "geheim77" not in str(found.value)
