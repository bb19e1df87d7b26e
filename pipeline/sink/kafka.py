"""Transport `kafka`: each delivery a record of another Kafka's topic, keyed by its device.

In: `delivery.<tenant>.<sink>`. Out: records that all in-sync replicas have (`acks=all`), by an
idempotent producer, so that the client's own repeats write none twice. Partitioned as Java does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, Field, field_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.model.delivery import Delivery
from pipeline.model.record import CONTENT_TYPE
from pipeline.rulebook.connections.kafka_cluster import KafkaClusterConfig
from pipeline.sink.batches import in_order, make_all, merge, refused, too_large
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.naming import Name, check_name
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

TOPIC_LENGTH_MAX = 249
_TOPIC_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
OVERHEAD_BYTES = 512  # of a record's and batch's own fields, beside key, value and headers


class KafkaConfig(KafkaClusterConfig):
    """A topic of a Kafka: `sinks/<name>.yaml`.

    ```yaml
    transport: kafka
    servers: kafka1.example.com:9092,kafka2.example.com:9092
    security: tls               # plaintext (default), or tls
    tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}
    sasl: {mechanism: SCRAM-SHA-512, user: funicular, password: "${env:KAFKA_PASSWORD}"}
    topic: iot.uplinks          # or with {tenant} {sink} {type} {integration} {device_type} …
    compression: none           # gzip, or lz4, snappy, zstd
    format: plain
    bytes_max: 1MB              # what the brokers take (`message.max.bytes`)
    batch: 500                  # records that wait for their acknowledgement together
    timeout: 30s                # for it
    ```
    Key: the device. Headers: `id`, `content-type`, or CloudEvents' attributes as `ce_…`.
    """

    topic: str = Field(min_length=1, max_length=TOPIC_LENGTH_MAX)
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"
    format: Format = PLAIN
    bytes_max: ByteCount = Field(default=1_000_000, ge=1_024, le=1 << 30)
    batch: int = Field(default=500, ge=1, le=10_000)
    timeout: Seconds = Field(default=30.0, ge=1, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("topic")
    @classmethod
    def _is_a_topic(cls, topic: str) -> str:
        check_name(topic)
        if not _is_topic(topic.replace("{", "").replace("}", "")):
            raise ValueError("a topic is made of letters, digits, `.`, `_` and `-`")
        return topic


class _Made(msgspec.Struct, frozen=True):
    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    device: str


class KafkaSink:
    """See `transport.Transport`. One producer; records of a batch are on their way together."""

    name: ClassVar[str] = "kafka"
    Config: ClassVar[type[BaseModel]] = KafkaConfig

    def __init__(self, config: KafkaConfig, context: Context) -> None:
        self._config = config
        self._shape = config.format.shape(context.tenant, context.destination)
        self._topic = Name(config.topic, str)
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> None:
        """Connect to the first broker that answers. RetryableError: not now."""
        if self._producer is not None:
            return
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - an extra

        config = self._config
        producer = AIOKafkaProducer(
            client_id="funicular-sink",
            acks="all",
            enable_idempotence=True,
            compression_type=None if config.compression == "none" else config.compression,
            max_request_size=config.bytes_max + OVERHEAD_BYTES,
            request_timeout_ms=round(config.timeout * 1_000),
            **config.client_options(),
        )
        try:
            async with asyncio.timeout(config.timeout):
                await producer.start()
        except BaseException as error:
            await _end(producer)
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None
        self._producer = producer

    async def close(self) -> None:
        """Disconnect; what is under way is given up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Hand all to the producer in order, and wait for each record's acknowledgement."""
        await self.open()
        made, results = make_all(batch, self._record)
        if not made:
            return results
        try:
            async with asyncio.timeout(self._config.timeout):
                outcomes = await self._send(made)
        except BaseException as error:
            missing = self._missing({one.topic for one in made})
            # The producer would send on what it holds, behind the back of the repeat.
            await self.close()
            if missing and isinstance(error, TimeoutError):
                message = f"Kafka has no topic `{missing}`: create it"
                raise RetryableError(message, code="topic_missing") from None
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None
        return merge(results, outcomes)

    def _missing(self, topics: set[str]) -> str:
        """Return one of the topics that the brokers do not know; empty: they know all."""
        if self._producer is None:
            return ""
        known = self._producer.client.cluster.topics()
        return min((topic for topic in topics if topic not in known), default="")

    async def _send(self, made: Sequence[_Made]) -> list[Result]:
        producer = self._producer
        assert producer is not None
        futures = [
            await producer.send(one.topic, one.value, key=one.key, headers=one.headers)
            for one in made
        ]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        results = [_result(answer) for answer in answers]
        if any(result.verdict is Verdict.POSTPONED for result in results):
            # The producer's numbering may have a gap now; a new one begins anew.
            await self.close()
        return in_order(made, results)

    def _record(self, delivery: Delivery) -> _Made:
        shaped = self._shape(delivery)
        topic = self._topic(delivery)
        if not _is_topic(topic):
            raise MessageError(f"`{topic[:100]}` cannot be a topic of Kafka", code="name")
        key = delivery.device.encode()
        headers = [(CONTENT_TYPE, shaped.content_type.encode())]
        if shaped.attributes:
            headers += [(f"ce_{name}", value.encode()) for name, value in shaped.attributes.items()]
        else:
            headers.append(("id", delivery.id.encode()))
        size = len(shaped.body) + len(key) + sum(len(n) + len(v) for n, v in headers)
        if size > self._config.bytes_max:
            raise too_large(size, self._config.bytes_max)
        return _Made(topic, key, shaped.body, headers, delivery.device)


def _is_topic(topic: str) -> bool:
    fits = 0 < len(topic) <= TOPIC_LENGTH_MAX and topic not in {".", ".."}
    return fits and set(topic) <= _TOPIC_SIGNS


def _result(answer: Any) -> Result:
    if not isinstance(answer, BaseException):
        return DELIVERED
    from aiokafka import errors  # noqa: PLC0415 - an extra

    if isinstance(answer, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        message = "the record is larger than the brokers take (`message.max.bytes`)"
        return refused(MessageError(message, code="too_large"))
    if isinstance(answer, errors.InvalidRecord):
        return refused(MessageError("the brokers refuse the record", code="record"))
    said = _not_now(answer)
    if said is None:
        raise answer
    return Result(Verdict.POSTPONED, said.code, said.message, uncertain=True)


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop it without sending what it holds, which would take as long as the outage."""
    producer._closed = True  # noqa: SLF001 - `stop` would wait for what it holds
    await producer._sender.close()  # noqa: SLF001
    await producer.client.close()


def _not_now(error: BaseException) -> RetryableError | None:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - an extra

    if isinstance(error, TimeoutError):
        return RetryableError("Kafka did not answer in time", code="timeout")
    if isinstance(error, KafkaError | OSError):
        return RetryableError(f"Kafka cannot be used: {error}", code="kafka")
    return None


TRANSPORT = KafkaSink
