"""Transport `mqtt`: each delivery published to a broker with QoS 1, acknowledged by it.

In: `delivery.<tenant>.<sink>`. Out: messages in order; a delivery counts once the broker has
acknowledged it (with QoS 0: once it is written to the connection).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, Field, field_validator

from pipeline.clients.mqtt import BrokerError, client_of, said
from pipeline.errors import MessageError, RetryableError
from pipeline.model.delivery import Delivery
from pipeline.rulebook.connections.mqtt_broker import MqttBrokerConfig
from pipeline.sink.batches import in_order, make_all, merge, refused, too_large
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.formats.shaped import Shaped
from pipeline.sink.naming import Name, check_name, percent_encoder
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict

if TYPE_CHECKING:
    import aiomqtt

PAYLOAD_BYTES_MAX = 268_435_455  # the protocol's own limit
TEXT_BYTES_MAX = 65_535
_HEAD_BYTES_MAX = 9  # of a packet: its kind and length, the topic's length, the message id
# Reason codes of a PUBACK (MQTT 5, 3.4.2.1) that blame the message, or its topic.
_OF_MESSAGE = {0x90: "topic", 0x95: "too_large", 0x99: "payload_format"}
_REFUSED_FROM = 0x80  # 0x10 says that nobody listens, which is no fault

# Without the first, a small packet of ours waits until the one before it has arrived; without the
# second (Linux, which forgets it now and then), one of the broker's does. Mosquitto as it is
# installed then takes 930 and 1,600 messages a second.
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class MqttConfig(MqttBrokerConfig):
    """An MQTT broker: `sinks/<name>.yaml`.

    ```yaml
    transport: mqtt
    server: mqtts://broker.example.com:8883   # mqtt:// without TLS
    user: funicular
    password: ${env:BROKER_PASSWORD}
    tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}   # where they are needed
    version: 5                  # or 3.1.1, which cannot say why a message is refused
    topic: sensors/{device}/up  # also {tenant} {sink} {type} {integration} {device_type}
                                # {application_id} {device_id} {dev_eui}; `/` in them becomes %2F
    qos: 1
    retain: false
    format: plain
    expiry: 1d                  # the broker forgets it then (version 5); default: never
    bytes_max: 1MB              # what the broker takes; a larger one is a dead letter
    batch: 100                  # messages that may wait for their acknowledgement
    timeout: 10s                # for the acknowledgements of a batch
    ```
    """

    version: Literal["3.1.1", "5"] = "5"
    topic: str = Field(min_length=1, max_length=1_024)
    qos: Literal[0, 1] = 1
    retain: bool = False
    format: Format = PLAIN
    expiry: Annotated[Seconds, Field(ge=1, le=4_294_967_295)] | None = None
    bytes_max: ByteCount = Field(default=PAYLOAD_BYTES_MAX, ge=1, le=PAYLOAD_BYTES_MAX)
    batch: int = Field(default=100, ge=1, le=10_000)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("topic")
    @classmethod
    def _is_a_topic(cls, topic: str) -> str:
        if any(sign in topic for sign in "+#\0"):
            raise ValueError("a topic to publish to has no + and no #")
        return check_name(topic)


class Message(msgspec.Struct, frozen=True):
    """What is published; `properties` are those of MQTT 5, packed; None in other versions."""

    device: str
    topic: str
    payload: bytes
    properties: bytes | None


class MqttSink:
    """See `transport.Transport`. One connection; made anew by `deliver` once it is lost."""

    name: ClassVar[str] = "mqtt"
    Config: ClassVar[type[BaseModel]] = MqttConfig

    def __init__(self, config: MqttConfig, context: Context) -> None:
        self._config = config
        self._shape = config.format.shape(context.tenant, context.destination)
        self._topic = Name(config.topic, percent_encoder("/+#"))
        self._own_name = config.client_id or f"funicular-{context.tenant}-{context.destination}"
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._client: aiomqtt.Client | None = None
        self._acknowledged: dict[int, int] = {}  # message id → reason code
        self._held = False  # one was not taken, and it is to be tried again
        self._stirred = asyncio.Event()  # an acknowledgement came, or the connection is lost
        self._in_flight_max = config.batch
        self._packet_bytes_max = 0  # 0: the broker names no limit

    async def open(self) -> None:
        """Connect. BrokerError: not now."""
        if self._client is not None and not self._client._disconnected.done():  # noqa: SLF001 - it has no public word for it
            return
        await self.close()
        # Sink workers are several, and a broker ends the first of two of one name.
        client = client_of(
            self._config, f"{self._own_name}-{token_hex(4)}", socket_options=_SOCKET_OPTIONS
        )
        self._watch(client)
        try:
            await client.__aenter__()
        except BaseException as error:
            client._client._sock_close()  # noqa: SLF001 - the library leaves it open
            if not isinstance(error, _mqtt_error()):
                raise
            raise BrokerError(said(error)) from None
        client._disconnected.add_done_callback(lambda _: self._stirred.set())  # noqa: SLF001
        self._client = client

    def _watch(self, client: aiomqtt.Client) -> None:
        """Learn from CONNACK what the broker takes, and from each PUBACK how it went: aiomqtt
        waits for one message at a time and passes over reason codes.
        """
        inner, connected = client._client, client._on_connect  # noqa: SLF001
        self._in_flight_max, self._packet_bytes_max = self._config.batch, 0

        def on_connect(one: Any, data: Any, flags: Any, code: Any, properties: Any = None) -> None:
            most = getattr(properties, "ReceiveMaximum", None)
            self._in_flight_max = min(self._config.batch, most or self._config.batch)
            self._packet_bytes_max = getattr(properties, "MaximumPacketSize", 0)
            connected(one, data, flags, code, properties)

        def on_publish(_one: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
            number = int(getattr(code, "value", 0))
            self._acknowledged[mid] = number
            self._held = self._held or _is_held(number)
            self._stirred.set()

        inner.on_connect, inner.on_publish = on_connect, on_publish
        inner.max_queued_messages_set(0)
        inner.max_inflight_messages_set(0)

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        self._acknowledged.clear()
        if client is None:
            return
        try:
            await client.__aexit__(None, None, None)
        except _mqtt_error():
            return  # it was gone already, which is what was wanted

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Publish all in order, as many at once as the broker allows, and wait for its words."""
        await self.open()
        messages, results = make_all(batch, self._message)
        try:
            async with asyncio.timeout(self._config.timeout):
                published = await self._publish_all(messages)
        except BaseException as error:
            # What is on its way would count for the next batch; a new connection knows nothing.
            await self.close()
            if isinstance(error, TimeoutError):
                message = f"no acknowledgement within {self._config.timeout:g} s"
                raise RetryableError(message, code="timeout") from None
            raise
        return merge(results, published)

    async def _publish_all(self, messages: Sequence[Message]) -> list[Result]:
        """Publish as many at once as the broker allows; none more once it has taken one of them
        for no fault of the message's own.
        """
        assert self._client is not None
        inner = self._client._client  # noqa: SLF001 - see `_watch`
        config = self._config
        ids: list[int] = []
        self._acknowledged.clear()
        self._held = False
        for message in messages:
            while len(ids) - len(self._acknowledged) >= self._in_flight_max:
                await self._stir()
            if self._held:
                break
            properties: Any = None  # paho takes whatever can pack itself
            if message.properties is not None:
                properties = _Packed(message.properties)
            info = inner.publish(
                message.topic, message.payload, config.qos, config.retain, properties
            )
            if info.rc:
                raise BrokerError("the connection to the broker is lost")
            ids.append(info.mid)
        while len(self._acknowledged) < len(ids):
            await self._stir()
        results = [_result(self._acknowledged[mid]) for mid in ids]
        if len(ids) < len(messages):
            held = next(one for one in results if one.verdict is Verdict.POSTPONED)
            results += [held] * (len(messages) - len(ids))
        return in_order(messages, results)

    async def _stir(self) -> None:
        """Wait for an acknowledgement. BrokerError: the connection is lost."""
        assert self._client is not None
        lost = self._client._disconnected  # noqa: SLF001 - see `open`
        if not lost.done():
            line: Any = self._client._client.socket()  # noqa: SLF001 - see `_watch`
            if _QUICK_ACK is not None and line is not None:
                line.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            self._stirred.clear()
            await self._stirred.wait()
        if lost.done():
            why = lost.exception()
            raise BrokerError(said(why) if isinstance(why, Exception) else "the broker hung up")

    def _message(self, delivery: Delivery) -> Message:
        shaped = self._shape(delivery)
        topic = self._topic(delivery)
        size = len(shaped.body)
        if size > self._config.bytes_max:
            raise too_large(size, self._config.bytes_max)
        if len(topic.encode()) > TEXT_BYTES_MAX:
            raise MessageError("the topic is longer than MQTT can say", code="topic")
        properties = self._properties(delivery, shaped) if self._config.version == "5" else None
        limit = self._packet_bytes_max
        if limit and size + len(topic.encode()) + len(properties or b"") + _HEAD_BYTES_MAX > limit:
            raise too_large(size, limit)
        return Message(delivery.device, topic, shaped.body, properties)

    def _properties(self, delivery: Delivery, shaped: Shaped) -> bytes:
        """Return what MQTT 5 says beside the payload; CloudEvents' binding (3.1) names the
        attributes as they are, and `id` is there without one, too. MQTT 5.0, 2.2.2 and 3.3.2.3.
        """
        parts = [b"\x03", _text(shaped.content_type)]
        for name, value in (shaped.attributes or {"id": delivery.id}).items():
            parts += (b"\x26", _text(name), _text(value))
        if self._config.expiry is not None:
            parts += (b"\x02", round(self._config.expiry).to_bytes(4))
        properties = b"".join(parts)
        return _length(len(properties)) + properties


class _Packed:
    """Properties as paho asks for them. Its own class takes 60 us to make and pack them, more than
    all the rest of a message.
    """

    __slots__ = ("_bytes",)

    def __init__(self, packed: bytes) -> None:
        self._bytes = packed

    def pack(self) -> bytes:
        """Return them with their length."""
        return self._bytes


def _text(value: str) -> bytes:
    """Return UTF-8 text with its length. MessageError: it is longer than MQTT can say."""
    encoded = value.encode(errors="replace").replace(b"\0", b"?")
    if len(encoded) > TEXT_BYTES_MAX:
        raise MessageError("an id or attribute is longer than MQTT can say", code="name")
    return len(encoded).to_bytes(2) + encoded


def _length(number: int) -> bytes:
    """Return a variable byte integer (1.5.5): seven bits a byte, the lowest first."""
    made = bytearray()
    while True:
        number, seven = divmod(number, 128)
        made.append(seven | (0x80 if number else 0))
        if not number:
            return bytes(made)


def _mqtt_error() -> type[Exception]:
    import aiomqtt  # noqa: PLC0415 - an extra

    return aiomqtt.MqttError


def _is_held(code: int) -> bool:
    return code >= _REFUSED_FROM and code not in _OF_MESSAGE


def _result(code: int) -> Result:
    if code < _REFUSED_FROM:
        return DELIVERED
    detail = {"reason_code": code}
    if code in _OF_MESSAGE:
        message = f"the broker refuses the message (reason code 0x{code:02x})"
        return refused(MessageError(message, code=_OF_MESSAGE[code], **detail))
    message = f"the broker does not take it (reason code 0x{code:02x})"
    if code == 0x87:
        message = "the broker does not let this user publish to this topic (reason code 0x87)"
    return Result(Verdict.POSTPONED, "broker", message, detail)


TRANSPORT = MqttSink
