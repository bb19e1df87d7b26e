"""How an MQTT broker is reached: what a user writes, of an integration or wherever else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from pipeline.integrations.dialect import Dialect, KnowsItsBroker, OverMqtt
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.at_server import AtServer
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.sas import SasConfig
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.rulebook.duration import Duration

LIBRARY = "aiomqtt"
_SERVERS = {
    "tts_v3": "mqtts://eu1.cloud.thethings.network:8883",
    "ttn_v2": "mqtts://eu.thethings.network:8883",
}
NAME_LENGTH_MAX = 256


class MqttBrokerConfig(AtServer):
    """`server: mqtts://broker.example:8883` (or `mqtt://…`, unencrypted), `user`, `password`,
    `tls` with certificates of one's own, `version` 3.1.1 or 5. `sas` makes user and password of
    Azure IoT Hub, for the device (or `device/module`) that `client_id` names.
    """

    ports: ClassVar[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883}
    example: ClassVar[str] = "mqtts://broker.example:8883"
    path: ClassVar[str] = "topics stand under `topics`"

    server: str = Field(description="as mqtts://broker.example:8883")
    user: Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX)] = ""
    password: SecretStr | None = None
    version: Literal["3.1.1", "5"] = "3.1.1"
    client_id: Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX)] = ""
    keepalive: Annotated[Duration, Field(ge=1, le=3_600)] = 30.0
    connect_timeout: Annotated[Duration, Field(gt=0, le=120)] = 10.0
    tls: TlsConfig | None = None
    sas: SasConfig | None = None

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, version: object) -> object:
        return str(version) if type(version) in (int, float) else version

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.tls is not None and not self.secure:
            raise ValueError("`tls` needs a server as mqtts://…")
        if self.password is not None and not self.user:
            raise ValueError("`password` is that of a `user`: set both")
        if self.sas is not None and (self.user or not self.client_id):
            raise ValueError("`sas` makes the user, of the device that `client_id` names")
        if find_spec(LIBRARY) is None:
            raise ValueError("MQTT needs a library: pip install 'funicular[mqtt]'")
        return self


class MqttSourceConfig(MqttBrokerConfig, ConnectionConfig):
    """An integration's `connection:`, with `transport: mqtt`.

    `topics`: filters; without them the dialect's. `qos` 1: a message is acknowledged once it is
    durable. `persistent`: the broker keeps what comes while we are away (for `session_expiry`,
    of version 5). `share`: a name by which several workers share the messages; order is then not
    kept. `retained`: also take what the broker kept from before the subscription.
    `downlink_client_id`: who publishes downlinks, where the broker lets nobody in by another name.
    `in_flight_max`: messages that are not acknowledged yet. `silence_max`: so long without a
    message is a fault; the connection is then made anew.
    """

    topics: tuple[Annotated[str, StringConstraints(min_length=1, max_length=1024)], ...] = Field(
        default=(), max_length=100
    )
    qos: Literal[0, 1] = 1
    persistent: bool = True
    session_expiry: Annotated[Duration, Field(ge=0, le=30 * 86_400)] = 86_400.0
    share: Annotated[str, StringConstraints(pattern=r"^[^/+#\s]*$", max_length=64)] = ""
    retained: bool = False
    downlink_client_id: Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX)] = ""
    in_flight_max: Annotated[int, Field(ge=1, le=65_535)] = 1_000
    silence_max: Annotated[Duration, Field(ge=1)] | None = None

    @field_validator("topics", mode="before")
    @classmethod
    def _one_or_more(cls, topics: object) -> object:
        return (topics,) if isinstance(topics, str) else topics

    @field_validator("topics")
    @classmethod
    def _are_filters(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            levels = topic.split("/")
            if "#" in levels[:-1] or any(
                sign in level and level != sign for level in levels for sign in "+#"
            ):
                raise ValueError(f"`{topic}`: + and # stand for whole levels, # for the last alone")
            if levels[0] == "$share":
                raise ValueError(f"`{topic}`: write the group under `share`")
        return topics

    @field_validator("qos", mode="before")
    @classmethod
    def _a_number(cls, qos: object) -> object:
        return int(qos) if isinstance(qos, str) and qos in ("0", "1") else qos

    @property
    def one_owner(self) -> bool:
        """A broker ends the first of two clients of one name: only those who share are several."""
        return not self.share

    @classmethod
    def carries(cls, dialect: Dialect) -> list[Problem]:
        """See `ConnectionConfig`."""
        if isinstance(dialect, OverMqtt):
            return []
        message = f"{dialect.name} does not come over MQTT"
        return [Problem(("transport",), message, "for topics of your own: `mqtt`", 0)]

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:
        """See `ConnectionConfig`."""
        if not self.topics and isinstance(dialect, OverMqtt) and not dialect.topics(options):
            hint = "write filters under `topics`, or a template under `options: topic`"
            return [Problem(("connection",), "names no topic to subscribe to", hint, 0)]
        if self.share:
            message = (
                "workers that share a subscription get a device's messages side by side: their"
                " order is not kept"
            )
            return [Problem(("connection", "share"), message, "", 0, warns=True)]
        return []

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:
        """See `ConnectionConfig`."""
        if isinstance(dialect, KnowsItsBroker):
            return dialect.broker_lines(variable)
        server = _SERVERS.get(dialect.name, "mqtts://broker.example.com:8883")
        qos = "0   # The Things Stack has no other" if dialect.name == "tts_v3" else "1"
        return [
            f"  server: {server}   # mqtt:// without TLS",
            f'  user: "${{env:{variable}_USER}}"',
            f'  password: "${{env:{variable}_PASSWORD}}"',
            f"  qos: {qos}",
            "  # tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}",
            '  # version: "5"',
            "  # topics: [a/filter/#]      # by default the dialect's own",
            "  # silence_max: 1h           # so long without a message is a fault",
            "  # share: funicular          # several workers; the order is not kept then",
        ]
