"""How a server of AMQP 1.0 is reached (Azure Event Hubs and Service Bus, Artemis, RabbitMQ), and
what an integration reads there: what a user writes under `connection:`.
"""

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

from pipeline.integrations.dialect import Dialect, OverMqtt
from pipeline.integrations.http import HttpOptions
from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.amqp_keys import check_downlink_template
from pipeline.rulebook.connections.at_server import AtServer
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.sas import SasConfig, token
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.rulebook.duration import Duration

LIBRARY = "proton"
_ADDRESS_LENGTH_MAX = 1_024
_PROPERTIES_MAX = 50

_Address = Annotated[str, StringConstraints(max_length=_ADDRESS_LENGTH_MAX)]
_Name = Annotated[str, StringConstraints(max_length=256)]


class EventHub(Part):
    """The address is an event hub: each partition is read from where we were, and its place kept
    with the messages. `partitions`: these alone; without it all, as the hub says. `start`: where
    to begin without a place.
    """

    consumer_group: Annotated[str, StringConstraints(min_length=1, max_length=256)] = "$Default"
    partitions: tuple[Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,64}$")], ...] = Field(
        default=(), max_length=1_024
    )
    start: Literal["latest", "earliest"] = "latest"

    @field_validator("partitions", mode="before")
    @classmethod
    def _as_texts(cls, partitions: object) -> object:
        if not isinstance(partitions, list | tuple):
            return partitions
        return tuple(str(each) if type(each) is int else each for each in partitions)


class Amqp1Server(AtServer):
    """`server`: amqps://host:5671 (or amqp://…, unencrypted). `user` and `password`, of Azure the
    name and the key of a shared access policy; or `sas`, of which a token for an hour is made (IoT
    Hub's own server).
    """

    ports: ClassVar[Mapping[str, int]] = {"amqp": 5672, "amqps": 5671}
    example: ClassVar[str] = "amqps://my-namespace.servicebus.windows.net"
    path: ClassVar[str] = "what is read stands under `address`"

    server: str = ""
    user: _Name = ""
    password: SecretStr | None = None
    sas: SasConfig | None = None

    @model_validator(mode="after")
    def _prove_one(self) -> Self:
        if (self.password is not None) != bool(self.user):
            raise ValueError("`user` and `password` go together: set both, or none")
        if self.sas is not None and (self.user or not self.sas.policy):
            raise ValueError("`sas` makes user and password, of the `policy` that it names")
        return self

    def login(self, now_s: float) -> tuple[str, str]:
        """Return user and password, both empty where there are none; of `sas`: a new token."""
        if self.sas is not None:
            hub = self.host.partition(".")[0]
            made = token(self.sas, self.host, round(now_s + self.sas.lifetime))
            return f"{self.sas.policy}@sas.root.{hub}", made
        return self.user, self.password.get_secret_value() if self.password else ""


class Amqp1Downlinks(Amqp1Server):
    """Where downlinks are sent: at the connection's own server, or at another one. `address` and
    `to` (a property of the message, by which a service finds the device) may have `{device_id}`,
    `{device}`, `{dev_eui}`, `{application_id}`. `properties`: application properties that each
    message gets.
    """

    address: Annotated[str, StringConstraints(min_length=1, max_length=_ADDRESS_LENGTH_MAX)]
    to: _Address = ""
    properties: dict[str, str] = Field(default={}, max_length=_PROPERTIES_MAX)

    @field_validator("address", "to")
    @classmethod
    def _is_a_template(cls, text: str) -> str:
        return check_downlink_template(text)

    @model_validator(mode="after")
    def _prove_it_there(self) -> Self:
        if not self.server and (self.user or self.sas):
            raise ValueError("`user` and `sas` are of another `server`: name it")
        return self


class Amqp1SourceConfig(Amqp1Server, ConnectionConfig):
    """An integration's `connection:`, with `transport: amqp1`.

    `server`, `user`, `password`, `sas`: see `Amqp1Server`; without them a certificate under `tls`
    is who we are (EXTERNAL), else nobody (ANONYMOUS). `address`: what is read: a queue, a
    subscription (topic/Subscriptions/name), an event hub. `event_hub`: how that is read. `topic`:
    which property of a message has the topic of dialects that MQTT carries. `credit`: messages
    that are not settled yet. `share`: several workers read the address at once; order is then not
    kept. `lock_renewal`: so often the locks of what is not settled are renewed (Azure Service
    Bus). `message_bytes_max`: a longer message becomes a dead letter, with its beginning.
    `silence_max`: so long without a message is a fault; the connection is then made anew.
    `downlinks`: where they are sent, or `http`: as the dialect posts them.
    """

    server: str = Field(description="as amqps://my-namespace.servicebus.windows.net")
    tls: TlsConfig | None = None
    container: _Name = ""
    address: Annotated[str, StringConstraints(min_length=1, max_length=_ADDRESS_LENGTH_MAX)]
    event_hub: EventHub | None = None
    topic: Literal["subject", "to"] = "subject"
    credit: Annotated[int, Field(ge=1, le=10_000)] = 300
    share: bool = False
    lock_renewal: Annotated[Duration, Field(ge=1, le=3_600)] | None = None
    message_bytes_max: Annotated[int, Field(ge=1_024, le=134_217_728)] = 16_777_216
    heartbeat: Annotated[Duration, Field(ge=1, le=3_600)] = 30.0
    connect_timeout: Annotated[Duration, Field(gt=0, le=120)] = 15.0
    silence_max: Annotated[Duration, Field(ge=1)] | None = None
    downlinks: Amqp1Downlinks | Literal["http"] | None = None

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.tls is not None and not self.secure:
            raise ValueError("`tls` needs a server as amqps://…")
        if self.event_hub is not None and self.share:
            raise ValueError(
                "an event hub is read by one worker, which keeps its place: no `share`"
            )
        if self.event_hub is not None and self.lock_renewal is not None:
            raise ValueError("`lock_renewal` is of Service Bus: an event hub has no locks")
        if find_spec(LIBRARY) is None:
            raise ValueError("AMQP 1.0 needs a library: pip install 'funicular[amqp1]'")
        return self

    def container_of(self, tenant: str, integration: str) -> str:
        """Return who we are to the server."""
        return self.container or f"funicular-{tenant}-{integration}"

    def way_down(self) -> Amqp1Downlinks | None:
        """Return where downlinks are sent; None: the dialect posts them."""
        return None if self.downlinks is None or self.downlinks == "http" else self.downlinks

    @property
    def one_owner(self) -> bool:
        """See `ConnectionConfig`."""
        return not self.share

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:
        """See `ConnectionConfig`."""
        problems = []
        posts = not isinstance(dialect, OverMqtt) and not isinstance(options, HttpOptions)
        if self.way_down() and posts:
            message = f"{dialect.name} posts its downlinks to its network server"
            hint = "leave `downlinks` out"
            problems.append(Problem(("connection", "downlinks"), message, hint, 0))
        if self.share:
            message = (
                "workers that share an address get a device's messages side by side: their order"
                " is not kept"
            )
            problems.append(Problem(("connection", "share"), message, "", 0, warns=True))
        return problems

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003 - the port's
        """See `ConnectionConfig`."""
        return [
            "  server: amqps://my-namespace.servicebus.windows.net   # amqp:// without TLS",
            f'  user: "${{env:{variable}_USER}}"          # Azure: a shared access policy\'s name',
            f'  password: "${{env:{variable}_PASSWORD}}"  # its key',
            "  address: telemetry            # queue, topic/Subscriptions/name, event hub",
            '  # event_hub: {consumer_group: "$Default", start: latest}',
            "  # lock_renewal: 20s           # Azure Service Bus",
            "  # silence_max: 1h             # so long without a message is a fault",
            "  # share: true                 # several workers; the order is not kept then",
        ]
