"""The transport of downlinks of integrations over AMQP 0-9-1: published to an exchange, and
confirmed by the broker; or posted, where the dialect's network server takes them by HTTP alone.

In: `delivery.<tenant>.downlink-<integration>`. Out: persistent messages with the downlink's id as
`message_id`, of one device one after the other. A message that no queue is bound for waits until
one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import SecretStr

from pipeline.clients.amqp import BrokerError, broker_error, connected
from pipeline.errors import MessageError
from pipeline.integrations.dialect import OverMqtt
from pipeline.integrations.http import HttpOptions
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.mqtt import Publication
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_broker import AmqpDownlinks
from pipeline.rulebook.connections.amqp_keys import downlink_key, key_of
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.transport import DELIVERED, Context, Result, Transport, Verdict

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

_NO_LINK = Link()
_NOWHERE = SecretStr("https://none.invalid/")
"""The dialect `http` makes the bodies; the address is not used."""


class _Made(NamedTuple):
    routing_key: str
    body: bytes
    content_type: str
    reference: str


class AmqpDownlinkTransport:
    """See `transport.Transport`. One channel with confirms; made anew once it is lost."""

    def __init__(self, integration: Integration, context: Context, way: AmqpDownlinks) -> None:
        settings = context.settings
        self._integration = integration
        self._dialect: Any = integration.dialect
        self._config = integration.connection
        self._way = way
        self._timeout_s = settings.downlink_timeout_s
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._connecting = asyncio.Lock()
        self._open: tuple[AbstractChannel, AsyncExitStack] | None = None

    async def open(self) -> None:
        """Connect. BrokerError: not now."""
        await self._channel()

    async def _channel(self) -> AbstractChannel:
        async with self._connecting:
            if self._open is not None and not self._open[0].is_closed:
                return self._open[0]
            await self.close()
            integration = self._integration
            name = f"funicular {integration.tenant}/{integration.name} downlinks"
            async with AsyncExitStack() as making:
                connection = await making.enter_async_context(connected(self._config, name))
                channel = await connection.channel(timeout=self._config.connect_timeout)
                self._open = channel, making.pop_all()
            return channel

    async def close(self) -> None:
        """Disconnect."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened[1].aclose()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Publish each, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        if delivery.downlink is None:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        try:
            made = self._made(delivery.downlink, delivery.link or _NO_LINK)
        except MessageError as error:
            return refused(error)
        return await self._publish(made, delivery.downlink.id)

    def _made(self, downlink: Downlink, link: Link) -> _Made:
        options, template = self._integration.options, self._way.routing_key
        if isinstance(self._dialect, OverMqtt):
            published: Publication = self._dialect.publication(downlink, link, options)
            key = downlink_key(template, downlink, link) if template else key_of(published.topic)
            return _Made(key, published.payload, "application/json", published.reference)
        if isinstance(options, HttpOptions):  # `check` lets no other come here
            options = options.model_copy(update={"downlink_url": _NOWHERE})
        call = self._dialect.send(downlink, link, options)
        content_type = call.headers.get("content-type", "application/octet-stream")
        return _Made(downlink_key(template, downlink, link), call.body, content_type, "")

    async def _publish(self, made: _Made, downlink_id: str) -> Result:
        from aiormq.exceptions import DeliveryError, PublishError  # noqa: PLC0415 - an extra
        from pamqp.commands import Basic  # noqa: PLC0415 - an extra

        properties = Basic.Properties(
            content_type=made.content_type,
            delivery_mode=2,  # persistent
            message_id=downlink_id[:255],
            app_id="funicular",
        )
        try:
            channel = await self._channel()
            await channel.basic_publish(
                made.body,
                exchange=self._way.exchange,
                routing_key=made.routing_key,
                properties=properties,
                mandatory=self._way.mandatory,
                timeout=self._timeout_s,
            )
        except BrokerError as error:
            return Result(Verdict.POSTPONED, "connect", error.message)
        except PublishError:
            message = (
                f"no queue is bound for the routing key `{made.routing_key[:100]}`: bind one, or"
                " say `downlinks: mandatory: false`"
            )
            return Result(Verdict.POSTPONED, "unroutable", message)
        except DeliveryError:
            message = "the broker does not take it now (nack): a queue is full, or a node away"
            return Result(Verdict.POSTPONED, "nack", message)
        except BaseException as error:
            found = broker_error(error)
            if found is None:
                raise
            await self.close()  # the next try begins with a new connection
            return Result(Verdict.POSTPONED, "broker", found.message, uncertain=True)
        if not made.reference:
            return DELIVERED
        return Result(Verdict.DELIVERED, detail={"reference": made.reference})


class _Handover:
    """See `transport.HandoverType`."""

    name: ClassVar[str] = "amqp"

    def __call__(self, integration: Integration, context: Context) -> Transport:
        way = integration.connection.way_down(integration.dialect)
        if way is None:
            return DownlinkTransport(integration, context)
        return AmqpDownlinkTransport(integration, context, way)


HANDOVER = _Handover()
