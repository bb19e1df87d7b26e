"""The source over AMQP 0-9-1 (RabbitMQ): reads a queue, hands over, acknowledges what is durable.

In: the messages of one queue, which the exchanges of `bindings` fill. They are acknowledged after
the log has them, in the order of arrival; what was not, the broker sends again. Nobody refuses a
message here, so that none is put back into the queue: what the dialect cannot read becomes a dead
letter. One that the library itself cannot read is read again with its properties mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pipeline.clients.amqp import BrokerError, UnreadableError, closed_by, connected
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.integrations.dialect import OverMqtt
from pipeline.model.http import Request
from pipeline.rulebook.connections.amqp_broker import AmqpSourceConfig
from pipeline.rulebook.connections.amqp_keys import topic_of

from .amqp_message import request_of

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage

_Item = Any  # a DeliveredMessage, or the BrokerError that ends the reading


class AmqpSource:
    """See `source.Source`."""

    name = "amqp"
    Config = AmqpSourceConfig

    def __init__(self, config: AmqpSourceConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._integration = context.integration
        self._dialect: Any = context.integration.dialect
        self._over_topics = isinstance(self._dialect, OverMqtt)
        self._queue = config.queue_of(context.integration.tenant, context.integration.name)
        self._mending = False

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`."""
        integration = self._integration
        name = f"funicular {integration.tenant}/{integration.name} {self._context.worker}".strip()
        try:
            async with connected(self._config, name, mending=self._mending) as connection:
                channel = await connection.channel(publisher_confirms=False)
                arrived = await self._consume(channel)
                health.connected(self._note())
                await self._read(channel, arrived, inlet)
        except UnreadableError as error:
            if self._mending:
                raise SourceError(error.message) from None
            self._mending = True
            raise SourceError(f"{error.message}; it is read again without them") from None
        except BrokerError as error:
            raise SourceError(error.message) from None

    def _note(self) -> str:
        return "messages' properties are mended, as one could not be read" if self._mending else ""

    async def _consume(self, channel: AbstractChannel) -> asyncio.Queue[_Item]:
        """Have the queue, and begin to read it."""
        config = self._config
        arrived: asyncio.Queue[_Item] = asyncio.Queue()  # bounded by the prefetch

        async def arrive(message: DeliveredMessage) -> None:
            arrived.put_nowait(message)

        def ended(_: asyncio.Future[Any]) -> None:
            arrived.put_nowait(_why(channel))

        async def cancelled(_: Any) -> None:
            said = f"the broker took the queue `{self._queue}` away: was it deleted?"
            arrived.put_nowait(BrokerError(said))

        connection = channel.connection
        connection.closing.add_done_callback(ended)
        channel.closing.add_done_callback(ended)
        channel.on_consumer_cancel_callbacks.add(cancelled)
        async with self._explained(), asyncio.timeout(config.connect_timeout):
            await channel.basic_qos(prefetch_count=config.prefetch)
            if config.declare:
                await channel.queue_declare(
                    self._queue, durable=True, arguments=config.queue_arguments
                )
            for exchange, key in config.bound(self._dialect, self._integration.options):
                await channel.queue_bind(self._queue, exchange, key)
            await channel.basic_consume(self._queue, arrive)
        return arrived

    @asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Say what the user can do where the broker refuses the queue, an exchange, or us."""
        from aiormq import exceptions as refused  # noqa: PLC0415 - an extra

        try:
            yield
        except refused.ChannelPreconditionFailed as error:
            raise BrokerError(
                f"the queue `{self._queue}` is there with other properties ({error}): delete it,"
                " or take it as it is with `declare: false`"
            ) from None
        except (refused.ChannelNotFoundEntity, refused.ChannelAccessRefused) as error:
            raise BrokerError(f"the broker refuses: {error}") from None

    async def _read(
        self, channel: AbstractChannel, arrived: asyncio.Queue[_Item], inlet: Inlet
    ) -> None:
        most = self._context.batch_max
        while True:
            batch = [await self._next(arrived)]
            while len(batch) < most and not arrived.empty():
                batch.append(arrived.get_nowait())
            broken = next((each for each in batch if isinstance(each, BrokerError)), None)
            if broken is not None:
                # What came before it cannot be acknowledged any more: the broker sends it again.
                raise broken
            if len(batch) + arrived.qsize() > 2 * self._config.prefetch:
                raise SourceError("the broker sends more messages than it may (`prefetch`)")
            await self._hand_over(batch, inlet)
            if channel.is_closed:
                raise _why(channel)
            # Whoever writes to a connection that hangs may wait for ever.
            async with asyncio.timeout(self._config.connect_timeout):
                await channel.basic_ack(batch[-1].delivery_tag, multiple=True, wait=False)

    async def _next(self, arrived: asyncio.Queue[_Item]) -> _Item:
        silence_s = self._config.silence_max
        try:
            async with asyncio.timeout(silence_s):
                return await arrived.get()
        except TimeoutError:
            raise SourceError(f"no message for {silence_s:g} s (`silence_max`)") from None

    async def _hand_over(self, batch: list[DeliveredMessage], inlet: Inlet) -> None:
        requests = [self._request(message) for message in batch]
        found = [request for request in requests if request is not None]
        await inlet.take(found)
        if len(found) < len(batch):
            inlet.pass_over(len(batch) - len(found), "routing keys that say nothing of a device")

    def _request(self, message: DeliveredMessage) -> Request | None:
        key = message.routing_key or ""
        body = bytes(message.body)
        if not self._over_topics:
            return request_of(
                message.exchange or "",
                key,
                message.header.properties,
                body,
                self._config.routing_key,
            )
        topic = topic_of(key)
        if topic is None:
            return None
        request: Request | None = self._dialect.from_topic(topic, body, self._integration.options)
        return request


def _why(channel: AbstractChannel) -> BrokerError:
    """Return why a channel ended: its own reason, or that of the connection."""
    found = [
        closed_by(closing.exception())
        for closing in (channel.connection.closing, channel.closing)
        if closing.done() and not closing.cancelled()
    ]
    unreadable = [error for error in found if isinstance(error, UnreadableError)]
    return next(iter(unreadable or found), closed_by(None))


SOURCE = AmqpSource
