"""A sample sent to the address that an integration reads over AMQP 1.0."""

from __future__ import annotations

from typing import Any

from pipeline.clients.amqp1 import ServerError, connected
from pipeline.integrations.dialect import OverMqtt
from pipeline.model.http import Request
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp1_server import Amqp1SourceConfig


async def send(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. Accepted by the server, it is there."""
    from proton import Message, symbol  # noqa: PLC0415 - an extra

    config: Amqp1SourceConfig = integration.connection
    dialect, options = integration.dialect, integration.options
    topic = dialect.sample_topic(device_id, options) if isinstance(dialect, OverMqtt) else None
    # What comes into a subscription is sent to its topic.
    address = config.address.partition("/Subscriptions/")[0]
    properties: dict[str, Any] = {}
    if name := getattr(options, "device_header", None):
        properties[name] = device_id
    message = Message(
        body=request.body,
        inferred=True,  # the body is bytes, and no value of a type
        durable=True,
        subject=topic if config.topic == "subject" else None,
        address=topic if config.topic == "to" else None,
        properties=properties or None,
    )
    if content_type := request.headers.get("content-type"):
        message.content_type = symbol(content_type)
    try:
        async with connected(config, "funicular-send") as connection:
            outcome = await connection.send(address, message.encode())
    except ServerError as error:
        raise NotSentError(error.message) from None
    if not outcome.accepted:
        raise NotSentError(f"the server does not take it: {outcome.said}")
    return address.encode()


SENDER = send
