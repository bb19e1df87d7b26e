"""Sample uplinks published to an integration's own broker: `funicular send` over MQTT.

In: an integration with a connection, a device, a payload. Out: messages of QoS 1 on the topics that
the integration is subscribed to; one Posted each, whose status 200 is the broker's word that it has
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from secrets import token_hex
from time import perf_counter, sleep, time
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.model.http import Request
from pipeline.mqtt_client import BrokerError, client_of, connected
from pipeline.rehearse.post import Posted, sample_of
from pipeline.rulebook.book import Integration

if TYPE_CHECKING:
    import aiomqtt


def publish(
    integration: Integration,
    *,
    device_id: str = "",
    payload: bytes = b"",
    request: Request | None = None,
    count: int = 1,
    counter: int = 1,
    interval_s: float = 0.0,
    now_s: Callable[[], float] = time,
    wait: Callable[[float], None] = sleep,
) -> Iterator[Posted]:
    """Publish `count` uplinks, `interval_s` apart, and yield what became of each.

    As `post.post`: `request`'s body as it is, or the dialect's sample. UsageError: the broker
    cannot be reached, before anything was sent; or the sample cannot be made.
    """
    dialect: Any = integration.dialect  # `dialect.OverMqtt`: `check` saw to it
    topic = dialect.sample_topic(device_id, integration.options)
    for number in range(counter, counter + count):
        if number > counter and interval_s > 0:
            wait(interval_s)
        each = request or sample_of(integration, device_id, number, payload, round(now_s() * 1_000))
        begun = perf_counter()
        try:
            asyncio.run(_publish(integration, topic, each.body))
        except BrokerError as error:
            if number == counter:
                raise UsageError(error.message, code="nobody_listens") from None
            yield Posted(number, 0, duration_s=perf_counter() - begun, error=error.message)
            continue
        yield Posted(number, 200, topic.encode(), duration_s=perf_counter() - begun)


async def _publish(integration: Integration, topic: str, body: bytes) -> None:
    config = integration.connection
    client: aiomqtt.Client = client_of(config, f"funicular-send-{token_hex(4)}")
    async with connected(client):
        await client.publish(topic, body, qos=config.qos, timeout=config.connect_timeout)
