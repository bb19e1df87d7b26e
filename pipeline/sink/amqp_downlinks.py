"""The transport of downlinks of integrations over AMQP 0-9-1: published to an exchange, and
confirmed by the broker; or posted, where the dialect's network server takes them by HTTP alone.

In: `delivery.<tenant>.downlink-<integration>`. Out: persistent messages with the downlink's id as
`message_id`, of one device one after the other. A message that no queue is bound for waits until
one is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pipeline.clients.amqp import BrokerError, broker_error, connected
from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_broker import AmqpDownlinks
from pipeline.rulebook.connections.amqp_keys import downlink_key, key_of
from pipeline.sink.amqp_body import AmqpBody, body_of, not_kept
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.held import Held
from pipeline.sink.transport import DELIVERED, Context, Result, Transport, Verdict

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

_NO_LINK = Link()


class AmqpDownlinkTransport:
    """See `transport.Transport`. One channel with confirms; made anew once it is lost."""

    def __init__(self, integration: Integration, context: Context, way: AmqpDownlinks) -> None:
        settings = context.settings
        self._integration = integration
        self._dialect = integration.dialect
        self._config = integration.connection
        self._way = way
        self._timeout_s = settings.downlink_timeout_s
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._channel = Held(self._connected, lambda channel: channel.is_closed)

    async def open(self) -> None:
        """Connect. BrokerError: not now."""
        await self._channel.get()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractChannel]:
        integration = self._integration
        name = f"funicular {integration.tenant}/{integration.name} downlinks"
        async with connected(self._config, name) as connection:
            yield await connection.channel(timeout=self._config.connect_timeout)

    async def close(self) -> None:
        """Disconnect."""
        await self._channel.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Publish each, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        if delivery.downlink is None:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        try:
            link = delivery.link or _NO_LINK
            made = body_of(self._dialect, delivery.downlink, link, self._integration.options)
            key = self._key(made, delivery.downlink, link)
        except MessageError as error:
            return refused(error)
        return await self._publish(made, key, delivery.downlink.id)

    def _key(self, made: AmqpBody, downlink: Downlink, link: Link) -> str:
        template = self._way.routing_key
        if made.topic and not template:
            return key_of(made.topic)
        return downlink_key(template, downlink, link)

    async def _publish(self, made: AmqpBody, key: str, downlink_id: str) -> Result:
        from aiormq.exceptions import DeliveryError  # noqa: PLC0415 - an extra
        from pamqp.commands import Basic  # noqa: PLC0415 - an extra

        properties = Basic.Properties(
            content_type=made.content_type,
            delivery_mode=2,  # persistent
            message_id=downlink_id[:255],
            app_id="funicular",
        )
        try:
            channel = await self._channel.get()
            await channel.basic_publish(
                made.body,
                exchange=self._way.exchange,
                routing_key=key,
                properties=properties,
                mandatory=self._way.mandatory,
                timeout=self._timeout_s,
            )
        except BrokerError as error:
            return Result(Verdict.POSTPONED, "connect", error.message)
        except DeliveryError as error:
            return not_kept(error, key, "downlinks: mandatory: false")
        except BaseException as error:
            found = broker_error(error)
            if found is None:
                raise
            await self.close()  # the next try begins with a new connection
            return Result(Verdict.POSTPONED, "broker", found.message, uncertain=True)
        if not made.reference:
            return DELIVERED
        return Result(Verdict.DELIVERED, detail={"reference": made.reference})


def _handover(integration: Integration, context: Context) -> Transport:
    way = integration.connection.way_down(integration.dialect)
    if way is None:
        return DownlinkTransport(integration, context)
    return AmqpDownlinkTransport(integration, context, way)


HANDOVER = _handover
