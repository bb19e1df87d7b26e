"""Transport `amqp`: each delivery published to an exchange (AMQP 0-9-1, RabbitMQ), confirmed by it.

In: `delivery.<tenant>.<sink>`. Out: persistent messages in order, with the delivery's id as
`message_id`; each counts once the broker has confirmed it. A message that no queue is bound for
comes back, and waits until one is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.model.delivery import Delivery
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig, tls_context
from pipeline.sink.amqp_body import not_kept
from pipeline.sink.batches import in_order, make_all, merge, too_large
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.library import check_library
from pipeline.sink.naming import Name, check_name, percent_encoder
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import DELIVERED, Context, Result
from pipeline.sink.urls import parts_of

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

NAME_BYTES_MAX = 255  # a short string: exchanges, routing keys, message ids
MESSAGE_BYTES_MAX = 134_217_728  # RabbitMQ's own default (`max_message_size`)
_SHORT = Annotated[str, Field(max_length=NAME_BYTES_MAX)]


class AmqpConfig(Part):
    """An exchange of RabbitMQ: `sinks/<name>.yaml`.

    ```yaml
    transport: amqp
    url: amqps://funicular:${env:BROKER_PASSWORD}@rabbit.example.com:5671/iot   # amqp:// without TLS
    tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}
    exchange: uplinks           # "": the default one, whose routing keys are queues
    declare: topic              # made where it is missing: topic, direct, fanout, headers;
                                # without it the exchange must be there
    routing_key: "{type}.{device}"   # also {tenant} {sink} {integration} {device_type}
                                # {application_id} {device_id} {dev_eui}; `.` in them becomes %2E
    mandatory: true             # false: what no queue is bound for is thrown away by the broker
    format: plain
    expiry: 1d                  # the broker forgets it then; default: never
    bytes_max: 16MB             # what the broker takes; a larger one is a dead letter
    batch: 100                  # messages that wait for their confirmation together
    timeout: 10s                # for it
    ```
    """  # noqa: E501 - an address is one line

    url: SecretStr = Field(max_length=4_096)
    tls: TlsConfig | None = None
    exchange: _SHORT = ""
    declare: Literal["topic", "direct", "fanout", "headers"] | None = None
    routing_key: str = Field(default="{device}", max_length=1_024)
    mandatory: bool = True
    format: Format = PLAIN
    expiry: Annotated[Seconds, Field(ge=1, le=4_294_967)] | None = None
    bytes_max: ByteCount = Field(default=16_000_000, ge=1, le=MESSAGE_BYTES_MAX)
    batch: int = Field(default=100, ge=1, le=10_000)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("url")
    @classmethod
    def _is_a_broker(cls, url: SecretStr) -> SecretStr:
        wanted = "must be an address as amqps://user@host:5671/virtual-host"
        parts = parts_of(url.get_secret_value(), {"amqp", "amqps"}, wanted)
        if parts.query:
            raise ValueError(f"{wanted}: without a query")
        return url

    @field_validator("routing_key")
    @classmethod
    def _is_a_name(cls, routing_key: str) -> str:
        return check_name(routing_key)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_library("aio_pika", "amqp")
        if self.tls is not None and urlsplit(self.url.get_secret_value()).scheme != "amqps":
            raise ValueError("`tls` needs a url as amqps://…")
        if self.declare is not None and not self.exchange:
            raise ValueError("the default exchange is always there: leave `declare` away")
        return self


class _Made(msgspec.Struct, frozen=True):
    device: str
    routing_key: str
    message: Any


class AmqpSink:
    """See `transport.Transport`. One channel with confirms; made anew once it is lost."""

    name: ClassVar[str] = "amqp"
    Config: ClassVar[type[BaseModel]] = AmqpConfig

    def __init__(self, config: AmqpConfig, context: Context) -> None:
        self._config = config
        self._shape = config.format.shape(context.tenant, context.destination)
        self._routing_key = Name(config.routing_key, percent_encoder(".*#"))
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None

    async def open(self) -> None:
        """Connect, and find or make the exchange. RetryableError: not now."""
        if self._is_open():
            return
        await self.close()
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._connect()
        except BaseException as error:
            await self.close()
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None

    def _is_open(self) -> bool:
        return (
            self._exchange is not None
            and self._connection is not None
            and not self._connection.is_closed
            and self._channel is not None
            and not self._channel.is_closed
        )

    async def _connect(self) -> None:
        import aio_pika  # noqa: PLC0415 - an extra

        config = self._config
        url = config.url.get_secret_value()
        context: ssl.SSLContext | None = None
        if urlsplit(url).scheme == "amqps":
            context = tls_context(config.tls)
        self._connection = await aio_pika.connect(url, ssl_context=context, timeout=config.timeout)
        self._channel = await self._connection.channel(
            publisher_confirms=True, on_return_raises=True
        )
        if not config.exchange:
            self._exchange = self._channel.default_exchange
        elif config.declare is not None:
            self._exchange = await self._channel.declare_exchange(
                config.exchange, config.declare, durable=True
            )
        else:
            self._exchange = await self._channel.get_exchange(config.exchange)

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        self._channel = self._exchange = None
        if connection is None:
            return
        try:
            async with asyncio.timeout(self._config.timeout):
                await connection.close()
        except BaseException as error:
            if _not_now(error) is None:
                raise

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Publish all in order, and wait for each one's confirmation."""
        await self.open()
        made, results = make_all(batch, self._message)
        if not made:
            return results
        try:
            async with asyncio.timeout(self._config.timeout):
                published = await self._publish_all(made)
        except BaseException as error:
            await self.close()
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None
        return merge(results, published)

    async def _publish_all(self, made: Sequence[_Made]) -> list[Result]:
        # Tasks start in the order of their making, and each hands its frames over before it waits.
        tasks = [asyncio.ensure_future(self._publish(one)) for one in made]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return in_order(made, results)

    async def _publish(self, made: _Made) -> Result:
        from aio_pika.exceptions import DeliveryError  # noqa: PLC0415 - an extra

        assert self._exchange is not None
        try:
            await self._exchange.publish(
                made.message, made.routing_key, mandatory=self._config.mandatory
            )
        except DeliveryError as error:
            return not_kept(error, made.routing_key, "mandatory: false")
        return DELIVERED

    def _message(self, delivery: Delivery) -> _Made:
        from aio_pika import DeliveryMode, Message  # noqa: PLC0415 - an extra

        shaped = self._shape(delivery)
        if len(shaped.body) > self._config.bytes_max:
            raise too_large(len(shaped.body), self._config.bytes_max)
        routing_key = self._routing_key(delivery)
        if len(routing_key.encode()) > NAME_BYTES_MAX or len(delivery.id.encode()) > NAME_BYTES_MAX:
            raise MessageError("its routing key or id has more than 255 bytes", code="name")
        headers: dict[str, Any] = {"device": delivery.device}
        # CloudEvents' binding of AMQP 1.0 says `cloudEvents:`; as a header of 0-9-1, RabbitMQ maps
        # it to the application property of that name.
        headers |= {f"cloudEvents:{name}": value for name, value in shaped.attributes.items()}
        message = Message(
            shaped.body,
            message_id=delivery.id,
            content_type=shaped.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            timestamp=datetime.fromtimestamp(delivery.time_ms / 1_000, UTC),
            expiration=self._config.expiry,
            headers=headers,
            app_id="funicular",
        )
        return _Made(delivery.device, routing_key, message)


def _not_now(error: BaseException) -> RetryableError | None:
    """Return our own error for one of the world's, None for any other."""
    from aio_pika.exceptions import AMQPError, ChannelInvalidStateError  # noqa: PLC0415 - an extra

    if isinstance(error, TimeoutError):
        return RetryableError("the broker did not answer in time", code="timeout")
    if isinstance(error, AMQPError | ChannelInvalidStateError | OSError):
        return RetryableError(f"the broker cannot be used: {_plain(error)}", code="broker")
    return None


def _plain(error: BaseException) -> str:
    """Return its text; the library's own texts about a connection may show the address whole."""
    text = str(error) or type(error).__name__
    return type(error).__name__ if "://" in text or "@" in text else text


TRANSPORT = AmqpSink
