"""The source over MQTT: subscribes, hands over, and acknowledges what is durable.

In: messages of the topics that the dialect or the user names. A QoS 1 message is acknowledged after
the log has it, in the order of arrival; what was not, the broker sends again after a reconnect, as
the session is kept. QoS 0 has no such thing: past `in_flight_max` those that come are dropped, and
counted.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from pipeline.clients.mqtt import BrokerError, client_of, connected
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.model.http import Request
from pipeline.rulebook.connections.mqtt_broker import MqttSourceConfig

if TYPE_CHECKING:
    import aiomqtt

_REFUSED_FROM = 0x80  # A SUBACK's return codes from here on are refusals, in both versions.


class _Arrived(asyncio.Queue["aiomqtt.Message"]):
    """What came and was not taken yet, bounded. The client calls `put_nowait` from the loop."""

    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self._messages_max = maxsize
        self.dropped = 0
        self.overrun = False

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Take a message. Past the limit one of QoS 0 is dropped; one of QoS 1 cannot be, and the
        broker, which sends more than it may, is left.
        """
        if self.qsize() < self._messages_max:
            super().put_nowait(item)
        elif item.qos == 0:
            self.dropped += 1
        else:
            self.overrun = True


class MqttSource:
    """See `source.Source`."""

    name = "mqtt"
    Config = MqttSourceConfig

    def __init__(self, config: MqttSourceConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._integration = context.integration
        self._dialect: Any = context.integration.dialect  # `dialect.OverMqtt`: `check` saw to it
        self._arrived = _Arrived(config.in_flight_max)
        self._until_s = math.inf  # when this connection is to be made anew

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`. A connection whose token is about to expire is made anew; the
        broker keeps what comes meanwhile.
        """
        loop = asyncio.get_running_loop()
        sas = self._config.sas
        try:
            while True:
                self._arrived = _Arrived(self._config.in_flight_max)
                self._until_s = math.inf if sas is None else loop.time() + sas.renewed_after_s
                client = self._client()
                async with connected(client):
                    health.connected(await self._subscribe(client))
                    await self._read(client, inlet)
        except BrokerError as error:
            raise SourceError(error.message) from None

    def _client(self) -> aiomqtt.Client:
        config = self._config
        client = client_of(
            config,
            self._client_id(),
            session_expiry_s=config.session_expiry if config.persistent else None,
            receive_max=config.in_flight_max,
            # The client makes its queue of this type; ours is bounded in its own way.
            queue_type=self._queue,
        )
        # The library has no way of its own yet to acknowledge later (empicano/aiomqtt#345).
        client._client.manual_ack_set(True)  # noqa: SLF001
        return client

    def _queue(self, maxsize: int = 0) -> _Arrived:  # noqa: ARG002 - as the client calls it
        return self._arrived

    def _client_id(self) -> str:
        """Return who we are to the broker: the same after a restart, so that the session is."""
        config, integration = self._config, self._integration
        own = config.client_id or f"funicular-{integration.tenant}-{integration.name}"
        # Those who share are several; without a share, a second one takes the first one's place.
        worker = f"-{self._context.worker}" if config.share and self._context.worker else ""
        return f"{own}{worker}"

    async def _subscribe(self, client: aiomqtt.Client) -> str:
        """Subscribe; return what the user should know of it."""
        config = self._config
        filters = config.topics or self._dialect.topics(self._integration.options)
        lower = []
        for each in filters:
            topic = f"$share/{config.share}/{each}" if config.share else each
            codes = await client.subscribe(topic, qos=config.qos)
            code: Any = codes[0]
            granted = int(getattr(code, "value", code))
            if granted >= _REFUSED_FROM:
                raise SourceError(
                    f"the broker refuses the subscription to `{topic}`: may this user read it?"
                )
            if granted < config.qos:
                lower.append(topic)
        if not lower:
            return ""
        return (
            f"the broker gives {', '.join(lower)} with QoS 0 alone: what it sends while nobody is"
            " connected is lost"
        )

    async def _read(self, client: aiomqtt.Client, inlet: Inlet) -> None:
        arrived, most = self._arrived, self._context.batch_max
        messages = aiter(client.messages)
        while (first := await self._next(messages)) is not None:
            batch = [first]
            while len(batch) < most and not arrived.empty():
                batch.append(arrived.get_nowait())
            await self._hand_over(batch, inlet)
            for message in batch:
                if message.qos:
                    client._client.ack(message.mid, message.qos)  # noqa: SLF001 - see `_client`
            if arrived.dropped:
                inlet.pass_over(arrived.dropped, "QoS 0 messages came faster than they are stored")
                arrived.dropped = 0
            if arrived.overrun:
                raise SourceError(
                    f"more than {self._config.in_flight_max} messages came that are not"
                    " acknowledged; the broker sends them again (`in_flight_max`)"
                )

    async def _next(self, messages: Any) -> aiomqtt.Message | None:
        """Return the next message; None: the connection has lasted long enough."""
        silence_s = self._config.silence_max or math.inf
        now_s = asyncio.get_running_loop().time()
        if self._until_s <= now_s:
            return None
        ends_s = min(now_s + silence_s, self._until_s)
        try:
            async with asyncio.timeout_at(None if ends_s == math.inf else ends_s):
                message: aiomqtt.Message = await anext(messages)
        except TimeoutError:
            if ends_s == self._until_s:
                return None
            raise SourceError(f"no message for {silence_s:g} s (`silence_max`)") from None
        return message

    async def _hand_over(self, batch: list[aiomqtt.Message], inlet: Inlet) -> None:
        requests = []
        other = retained = 0
        options = self._integration.options
        for message in batch:
            if message.retain and not self._config.retained:
                retained += 1
                continue
            request: Request | None = self._dialect.from_topic(
                message.topic.value, _bytes(message.payload), options
            )
            if request is None:
                other += 1
            else:
                requests.append(request)
        await inlet.take(requests)
        if other:
            inlet.pass_over(other, "topics that say nothing of a device")
        if retained:
            inlet.pass_over(retained, "retained by the broker from before (`retained: true`)")


def _bytes(payload: Any) -> bytes:
    return payload if isinstance(payload, bytes) else bytes(payload or b"")


SOURCE = MqttSource
