"""The transport of downlinks of integrations over AMQP 1.0: sent to an address, and accepted there;
or posted, where the integration says no address.

In: `delivery.<tenant>.downlink-<integration>`. Out: durable messages with the downlink's id as
`message-id`, of one device one after the other. For Azure IoT Hub the address is
`/messages/devicebound`, and `to` names the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from pipeline.clients.amqp1 import Connection, ServerError, connected
from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp1_server import Amqp1Downlinks
from pipeline.rulebook.connections.amqp_keys import downlink_address
from pipeline.sink.amqp_body import body_of
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.held import Held
from pipeline.sink.transport import DELIVERED, Context, Result, Transport, Verdict

_NO_LINK = Link()


class Amqp1DownlinkTransport:
    """See `transport.Transport`. One connection; made anew once it is lost."""

    def __init__(self, integration: Integration, context: Context, way: Amqp1Downlinks) -> None:
        settings = context.settings
        self._integration = integration
        self._dialect = integration.dialect
        self._config = integration.connection
        self._way = way
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._connection = Held(self._connected, lambda connection: connection.ended)

    async def open(self) -> None:
        """Connect. ServerError: not now."""
        await self._connection.get()

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        integration = self._integration
        own = self._config.container_of(integration.tenant, integration.name)
        return connected(self._config, f"{own}-down", self._way if self._way.server else None)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Send each, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        if delivery.downlink is None:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        try:
            address, data, reference = self._made(delivery.downlink, delivery.link or _NO_LINK)
        except MessageError as error:
            return refused(error)
        try:
            connection = await self._connection.get()
        except ServerError as error:
            return Result(Verdict.POSTPONED, "connect", error.message)
        try:
            outcome = await connection.send(address, data)
        except ServerError as error:
            return Result(Verdict.POSTPONED, "broker", error.message, uncertain=True)
        if outcome.accepted:
            detail = {"reference": reference} if reference else {}
            return Result(Verdict.DELIVERED, detail=detail) if detail else DELIVERED
        if outcome.again:
            return Result(Verdict.POSTPONED, "released", outcome.said)
        return Result(Verdict.REFUSED, "rejected", f"the server refuses it: {outcome.said}")

    def _made(self, downlink: Downlink, link: Link) -> tuple[str, bytes, str]:
        from proton import Message, symbol  # noqa: PLC0415 - an extra

        made = body_of(self._dialect, downlink, link, self._integration.options)
        way = self._way
        message = Message(
            body=made.body,
            inferred=True,  # the body is bytes, and no value of a type
            durable=True,
            id=downlink.id,
            address=downlink_address(way.to, downlink, link) or None,
            subject=made.topic or None,
            properties=dict(way.properties) or None,
        )
        message.content_type = symbol(made.content_type)
        return downlink_address(way.address, downlink, link), message.encode(), made.reference


def _handover(integration: Integration, context: Context) -> Transport:
    way = integration.connection.way_down()
    if way is None:
        return DownlinkTransport(integration, context)
    return Amqp1DownlinkTransport(integration, context, way)


HANDOVER = _handover
