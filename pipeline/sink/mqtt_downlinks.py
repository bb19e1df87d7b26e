"""The transport of downlinks of integrations over MQTT: the dialect makes the message, a connection
of our own publishes it.

In: `delivery.<tenant>.downlink-<integration>`. Out: messages of QoS 1 (as far as the integration
asks for it); one that the broker has acknowledged is handed over. MQTT has no way to empty a
network server's queue: that goes to its API, where the dialect has one and the options name it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from pipeline.clients.mqtt import BrokerError, client_of, connected, said
from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.model.mqtt import Publication
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.held import Held
from pipeline.sink.transport import Context, Result, Verdict

if TYPE_CHECKING:
    import aiomqtt

_NO_LINK = Link()


class MqttDownlinkTransport:
    """See `transport.Transport`. One connection; of one device one downlink after the other."""

    def __init__(self, integration: Integration, context: Context) -> None:
        settings = context.settings
        self._integration = integration
        self._dialect: Any = integration.dialect  # `dialect.OverMqtt`: `check` saw to it
        self._config = integration.connection
        self._timeout_s = settings.downlink_timeout_s
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._over_http = DownlinkTransport(integration, context)
        self._connection = Held(self._connected)

    async def open(self) -> None:
        """Connect. BrokerError: not now."""
        await self._connection.get()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiomqtt.Client]:
        integration, config = self._integration, self._config
        own = config.client_id or f"funicular-{integration.tenant}-{integration.name}"
        # Sink workers are several, and a broker ends the first of two of one name.
        client = client_of(config, config.downlink_client_id or f"{own}-down-{token_hex(4)}")
        async with connected(client):
            yield client

    async def close(self) -> None:
        """Disconnect."""
        await self._over_http.close()
        await self._connection.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Publish each, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        if delivery.clear:
            (result,) = await self._over_http.deliver([delivery])
            return result
        if delivery.downlink is None:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        try:
            made: Publication = self._dialect.publication(
                delivery.downlink, delivery.link or _NO_LINK, self._integration.options
            )
        except MessageError as error:
            return refused(error)
        return await self._publish(made)

    async def _publish(self, made: Publication) -> Result:
        import aiomqtt  # noqa: PLC0415 - an extra

        try:
            client = await self._connection.get()
            await client.publish(
                made.topic, made.payload, qos=self._config.qos, timeout=self._timeout_s
            )
        except BrokerError as error:
            return Result(Verdict.POSTPONED, "connect", error.message)
        except aiomqtt.MqttError as error:
            await self._connection.close()  # the next try begins with a new connection
            return Result(Verdict.POSTPONED, "broker", said(error), uncertain=True)
        detail = {"reference": made.reference} if made.reference else {}
        return Result(Verdict.DELIVERED, detail=detail)


HANDOVER = MqttDownlinkTransport
