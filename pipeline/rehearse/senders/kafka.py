"""A sample written to a topic that an integration over Kafka reads."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.clients.kafka import quiet
from pipeline.errors import RetryableError
from pipeline.integrations.dialect import OverMqtt
from pipeline.model.http import Request
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.kafka_topics import KafkaSourceConfig


async def produce(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. To the first of `topics`; its key is as the dialect's system writes it,
    or the device; it is there when all in-sync replicas have it.
    """
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - an extra
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - an extra

    config: KafkaSourceConfig = integration.connection
    if not config.topics:
        raise NotSentError("the integration names no topic, only a `pattern` of them")
    topic = config.topics[0]
    headers = [(name, value.encode()) for name, value in request.headers.items()]
    if "event" in request.query:
        headers.append(("event", request.query["event"].encode()))
    quiet()
    try:
        producer = AIOKafkaProducer(**config.client_options(), acks="all")
        async with asyncio.timeout(config.connect_timeout):
            await producer.start()
            try:
                sent = await producer.send_and_wait(
                    topic, request.body, key=_key(integration, device_id), headers=headers
                )
            finally:
                await producer.stop()
    except TimeoutError:
        raise NotSentError(f"the brokers at {config.servers} did not take it in time") from None
    except (KafkaError, OSError, RetryableError) as error:
        raise NotSentError(f"the Kafka cannot be written: {error}") from None
    return f"{sent.topic}-{sent.partition} at {sent.offset}".encode()


def _key(integration: Integration, device_id: str) -> bytes:
    dialect: Any = integration.dialect
    if not isinstance(dialect, OverMqtt):
        return device_id.encode()
    topic = dialect.sample_topic(device_id, integration.options)
    return topic.replace("/", ".").encode()


SENDER = produce
