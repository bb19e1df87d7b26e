"""A sample published to an integration's own broker, on a topic that it is subscribed to."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

from pipeline.clients.mqtt import BrokerError, client_of, connected
from pipeline.model.http import Request
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration

if TYPE_CHECKING:
    import aiomqtt


async def publish(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. It has the integration's QoS; the broker's word ends it."""
    dialect: Any = integration.dialect  # `dialect.OverMqtt`: `check` saw to it
    topic: str = dialect.sample_topic(device_id, integration.options)
    config = integration.connection
    client: aiomqtt.Client = client_of(config, f"funicular-send-{token_hex(4)}")
    try:
        async with connected(client):
            await client.publish(
                topic, request.body, qos=config.qos, timeout=config.connect_timeout
            )
    except BrokerError as error:
        raise NotSentError(error.message) from None
    return topic.encode()


SENDER = publish
