"""A sample published to an integration's own broker (AMQP 0-9-1), so that its queue gets it."""

from __future__ import annotations

import re
from typing import Any

from pipeline.clients.amqp import BrokerError, broker_error, connected
from pipeline.integrations.dialect import OverMqtt
from pipeline.model.http import Request
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_broker import AmqpSourceConfig, exchange_of


async def publish(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. The broker's confirmation ends it."""
    from aiormq.exceptions import DeliveryError, PublishError  # noqa: PLC0415 - an extra
    from pamqp.commands import Basic  # noqa: PLC0415 - an extra

    config: AmqpSourceConfig = integration.connection
    exchange, key = target(integration, device_id)
    options = integration.options
    headers: dict[str, Any] = {}
    if name := getattr(options, "device_header", None):
        headers[name] = device_id
    properties = Basic.Properties(
        content_type=request.headers.get("content-type"), headers=headers, delivery_mode=2
    )
    try:
        async with connected(config, "funicular send") as connection:
            channel = await connection.channel(timeout=config.connect_timeout)
            await channel.basic_publish(
                request.body,
                exchange=exchange,
                routing_key=key,
                properties=properties,
                mandatory=True,
                timeout=config.connect_timeout,
            )
    except BrokerError as error:
        raise NotSentError(error.message) from None
    except PublishError:
        said = f"no queue is bound for `{key}`: is Funicular running, so that it made its queue?"
        raise NotSentError(said) from None
    except (DeliveryError, RuntimeError) as error:
        found = broker_error(error)
        raise NotSentError(found.message if found else str(error)) from None
    return f"{exchange or '(default)'}: {key}".encode()


def target(integration: Integration, device_id: str) -> tuple[str, str]:
    """Return the exchange and key by which a device's message comes into the queue."""
    config: AmqpSourceConfig = integration.connection
    dialect, options = integration.dialect, integration.options
    bound = config.bound(dialect, options)
    exchange = bound[0][0] if bound else ""
    if not bound and config.declare:
        return "", config.queue_of(integration.tenant, integration.name)
    if isinstance(dialect, OverMqtt):
        topic = dialect.sample_topic(device_id, options)
        return exchange or exchange_of(dialect), topic.replace("/", ".")
    if not bound:
        return "", config.queue_of(integration.tenant, integration.name)
    pattern = config.routing_key or bound[0][1]
    key = re.sub(r"\{device_id\}", device_id, pattern)
    key = re.sub(r"\{([a-z0-9_]+)\}", r"\1", key)
    return exchange, key.replace("*", device_id).replace("#", device_id)


SENDER = publish
