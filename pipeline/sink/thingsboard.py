"""Transport `thingsboard`: telemetry and attributes of many devices, as ThingsBoard takes them.

In: `delivery.<tenant>.<sink>`. Out, as `api` says: `gateway`: the Gateway MQTT API, which makes
devices by their names; `device`: the HTTP Device API, with an access token for each device. A
message of type `attributes_updated` sets client attributes; of any other, telemetry is stored.

Format: thingsboard.io/docs, "Gateway MQTT API" and "HTTP Device API Reference". An HTTP integration
of ThingsBoard PE takes any body, hence the transport `http` writes to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.integrations.dialect import path_segment
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.calls import USER_AGENT, Caller, judge, unanswered
from pipeline.sink.formats.shaped import encode, origin_of, time_ms, whole_message
from pipeline.sink.formats.template import TemplateFormat
from pipeline.sink.mqtt import Message, MqttConfig, MqttSink
from pipeline.sink.retry import RetryConfig, Seconds
from pipeline.sink.transport import Context, Result, Transport

ATTRIBUTES = "attributes_updated"
_SCHEMES = {"gateway": ("mqtt", "mqtts"), "device": ("http", "https")}


class ThingsboardConfig(Part):
    """ThingsBoard: `sinks/<name>.yaml`.

    ```yaml
    transport: thingsboard
    api: gateway                # one MQTT connection for all devices, made by their names
    server: mqtts://thingsboard.example.com:8883
    token: ${env:GATEWAY_TOKEN} # the access token of a device that is marked "Is gateway"
    tls: {ca_file: ca.pem}
    batch: 100
    timeout: 10s
    ```
    With `api: device`, `server` is a web address, and `token` that of each device: text with an
    expression, as `${body.metadata.thingsboard_token}`.
    """

    api: Literal["gateway", "device"] = "gateway"
    server: str = Field(max_length=4_096)
    token: SecretStr = Field(min_length=1, max_length=1_000)
    tls: TlsConfig | None = None
    batch: int = Field(default=100, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=256)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        parts = urlsplit(self.server)
        schemes = _SCHEMES[self.api]
        if parts.scheme not in schemes or not parts.hostname or parts.username or parts.query:
            raise ValueError(
                f"`server` of `api: {self.api}` must be an address as {schemes[1]}://…, without"
                " user and query"
            )
        if self.api == "gateway":
            self.mqtt()
        else:
            self.token_template()
        return self

    def mqtt(self) -> MqttConfig:
        """Return how the gateway's connection is made. ValidationError: it cannot be."""
        return MqttConfig(
            server=self.server,
            user=self.token.get_secret_value(),
            version="3.1.1",
            topic="v1/gateway/telemetry",
            tls=self.tls.model_dump() if self.tls is not None else None,
            batch=self.batch,
            timeout=self.timeout,
            retry=self.retry,
        )

    def token_template(self) -> TemplateFormat:
        """Return what gives a device's token. ValidationError: its expression has a fault."""
        return TemplateFormat(body=self.token.get_secret_value(), content_type="text/plain")


class ThingsboardSink:
    """See `transport.Transport`: one of the two below."""

    name: ClassVar[str] = "thingsboard"
    Config: ClassVar[type[BaseModel]] = ThingsboardConfig

    def __init__(self, config: ThingsboardConfig, context: Context) -> None:
        gateway = config.api == "gateway"
        self._inner: Transport = (
            _Gateway(config.mqtt(), context) if gateway else _Devices(config, context)
        )
        self.deliveries_max = self._inner.deliveries_max
        self.concurrency = self._inner.concurrency
        self.retry = config.retry

    async def open(self) -> None:
        """Connect. RetryableError: not now."""
        await self._inner.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._inner.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Send each as its own message."""
        return await self._inner.deliver(batch)


class _Gateway(MqttSink):
    """The Gateway MQTT API: QoS 1, one message a delivery."""

    def _message(self, delivery: Delivery) -> Message:
        body: dict[str, Any]
        if _is_attributes(delivery):
            body, topic = {delivery.device: _attributes(delivery)}, "v1/gateway/attributes"
        else:
            body, topic = {delivery.device: [_telemetry(delivery)]}, "v1/gateway/telemetry"
        return Message(delivery.device, topic, encode(body), None)


class _Devices:
    """The HTTP Device API: one request a delivery."""

    def __init__(self, config: ThingsboardConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._token = config.token_template().shape(context.tenant, context.destination)
        self.deliveries_max = 1
        self.concurrency = config.concurrency
        self.retry = config.retry
        self._caller = Caller(timeout_s=config.timeout, settings=context.settings, tls=config.tls)

    async def open(self) -> None:
        """Make the connection pool. RetryableError: a certificate cannot be used."""
        await self._caller.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Send each, in order; past one that is postponed, none is tried."""
        await self.open()
        return await one_by_one(batch, self._send)

    async def _send(self, delivery: Delivery) -> Result:
        try:
            token = self._token(delivery).body.decode()
            what = "attributes" if _is_attributes(delivery) else "telemetry"
            body = _attributes(delivery) if what == "attributes" else _telemetry(delivery)
            url = f"{self._config.server.rstrip('/')}/api/v1/{path_segment(token)}/{what}"
            headers = {"content-type": "application/json", "user-agent": USER_AGENT}
            answer = await self._caller.call(Call(url, encode(body), headers=headers))
        except RetryableError as error:
            return unanswered(error)
        except MessageError as error:
            return refused(error)
        return judge(
            answer,
            now_ms=self._context.now_ms(),
            pause_s_max=self._context.settings.retry_after_s_max,
            secrets=[token],
        )


def _is_attributes(delivery: Delivery) -> bool:
    return origin_of(delivery).type == ATTRIBUTES


def _attributes(delivery: Delivery) -> dict[str, Any]:
    whole = whole_message(delivery)
    if whole is not None:
        return _mapping(whole.get("attributes", {}))
    return _mapping(delivery.body)


def _telemetry(delivery: Delivery) -> dict[str, Any]:
    whole = whole_message(delivery)
    values = _mapping(whole["telemetry"] if whole is not None else delivery.body)
    if not values:
        raise MessageError("it has no values that ThingsBoard could store", code="no_values")
    return {"ts": time_ms(delivery), "values": values}


def _mapping(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {"value": value}


TRANSPORT = ThingsboardSink
