"""How a broker of AMQP 0-9-1 (RabbitMQ) is reached, and which queue an integration reads: what a
user writes under `connection:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from pipeline.integrations.dialect import Dialect, KnowsItsBroker, OverMqtt
from pipeline.integrations.http import HttpOptions
from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.amqp_keys import (
    KEY_BYTES_MAX,
    binding_of_filter,
    binding_of_template,
    check_downlink_template,
    check_template,
)
from pipeline.rulebook.connections.at_server import AtServer
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.rulebook.duration import Duration

LIBRARY = "aiormq"
EXCHANGES = {"ttn_v2": "ttn.handler"}
"""Where a network server publishes; any other's topics are those of RabbitMQ's MQTT plug-in."""
TOPIC_EXCHANGE = "amq.topic"
_HTTP_DOWN = frozenset({"chirpstack", "chirpstack_v3"})  # Their AMQP brings events alone.
_NAME_LENGTH_MAX = 255
_ARGUMENTS_MAX = 50

_Name = Annotated[str, StringConstraints(max_length=_NAME_LENGTH_MAX)]
_Key = Annotated[str, StringConstraints(max_length=KEY_BYTES_MAX)]


class AmqpBinding(Part):
    """`{exchange: plant, keys: [plant.*.up]}`. Without keys: those of `routing_key`, of the
    dialect's topics, or all (`#`).
    """

    exchange: Annotated[str, StringConstraints(min_length=1, max_length=_NAME_LENGTH_MAX)]
    keys: tuple[_Key, ...] = Field(default=(), max_length=100)

    @field_validator("keys", mode="before")
    @classmethod
    def _one_or_more(cls, keys: object) -> object:
        return (keys,) if isinstance(keys, str) else keys


class AmqpDownlinks(Part):
    """Where downlinks are published. `exchange` empty: the default one, whose keys are queues.

    `routing_key`: as `plant.{device_id}.down`; without one, that of the dialect's topic.
    `mandatory`: a downlink that no queue is bound for waits; else the broker throws it away.
    """

    exchange: _Name = ""
    routing_key: _Key = ""
    mandatory: bool = True

    @field_validator("routing_key")
    @classmethod
    def _is_a_template(cls, routing_key: str) -> str:
        return check_downlink_template(routing_key)


class AmqpSourceConfig(AtServer, ConnectionConfig):
    """An integration's `connection:`, with `transport: amqp`.

    `server`: amqps://host:5671/virtual-host (or amqp://…, unencrypted). Without a `user`, a
    certificate under `tls` is who we are (EXTERNAL), else it is RabbitMQ's guest.
    `queue`: read by us alone; without a name, funicular-{tenant}-{integration}. `declare`: it is
    made where it is missing, durable, of `queue_type` and with `arguments`, and bound as
    `bindings` say; false: it is taken as it is. `routing_key`: a template of the keys that come;
    its names become parts of the query. `share`: several workers read the queue at once; order
    is then not kept. `prefetch`: messages that are not acknowledged yet. `silence_max`: so long
    without a message is a fault; the connection is then made anew. `downlinks`: where they are
    published, or `http`: as the dialect posts them.
    """

    ports: ClassVar[Mapping[str, int]] = {"amqp": 5672, "amqps": 5671}
    example: ClassVar[str] = "amqps://rabbit.example:5671/virtual-host"

    server: str = Field(description="as amqps://rabbit.example:5671/virtual-host")
    user: _Name = ""
    password: SecretStr | None = None
    tls: TlsConfig | None = None
    queue: _Name = ""
    declare: bool = True
    queue_type: Literal["classic", "quorum"] = "classic"
    arguments: dict[str, str | int | bool] = Field(default={}, max_length=_ARGUMENTS_MAX)
    bindings: tuple[AmqpBinding, ...] | None = Field(default=None, max_length=100)
    routing_key: _Key = ""
    share: bool = False
    prefetch: Annotated[int, Field(ge=1, le=65_535)] = 1_000
    heartbeat: Annotated[Duration, Field(ge=2, le=3_600)] = 20.0
    connect_timeout: Annotated[Duration, Field(gt=0, le=120)] = 10.0
    silence_max: Annotated[Duration, Field(ge=1)] | None = None
    downlinks: AmqpDownlinks | Literal["http"] | None = None

    @field_validator("routing_key")
    @classmethod
    def _is_a_template(cls, routing_key: str) -> str:
        return check_template(routing_key) if routing_key else ""

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.tls is not None and not self.secure:
            raise ValueError("`tls` needs a server as amqps://…")
        if (self.password is not None) != bool(self.user):
            raise ValueError("`user` and `password` go together: set both, or none")
        if not self.declare and not self.queue:
            raise ValueError("`declare: false` takes a queue that is there: name it under `queue`")
        if not self.declare and (self.arguments or "queue_type" in self.model_fields_set):
            raise ValueError("`declare: false` takes the queue as it is: it has its type already")
        if find_spec(LIBRARY) is None:
            raise ValueError("AMQP needs a library: pip install 'funicular[amqp]'")
        return self

    @property
    def virtual_host(self) -> str:
        """RabbitMQ's virtual host; `/` where the address names none."""
        return unquote(urlsplit(self.server).path[1:]) or "/"

    def queue_of(self, tenant: str, integration: str) -> str:
        """Return the queue's name."""
        return self.queue or f"funicular-{tenant}-{integration}"

    @property
    def queue_arguments(self) -> dict[str, Any]:
        """What the queue is declared with. A classic one needs no type, and may be older."""
        kind = {} if self.queue_type == "classic" else {"x-queue-type": self.queue_type}
        return {**kind, **self.arguments}

    def bound(self, dialect: Dialect, options: Any) -> list[tuple[str, str]]:
        """Return the bindings to make, as exchange and key."""
        keys = self._keys(dialect, options)
        if self.bindings is None:
            if not self.declare or not isinstance(dialect, OverMqtt) or not keys:
                return []
            return [(exchange_of(dialect), key) for key in keys]
        return [
            (binding.exchange, key)
            for binding in self.bindings
            for key in (binding.keys or keys or ("#",))
        ]

    def _keys(self, dialect: Dialect, options: Any) -> tuple[str, ...]:
        if self.routing_key:
            return (binding_of_template(self.routing_key),)
        if isinstance(dialect, OverMqtt):
            return tuple(binding_of_filter(each) for each in dialect.topics(options))
        return ()

    def way_down(self, dialect: Dialect) -> AmqpDownlinks | None:
        """Return where downlinks are published; None: the dialect posts them."""
        if self.downlinks is None:
            if isinstance(dialect, OverMqtt) and dialect.name not in _HTTP_DOWN:
                return AmqpDownlinks(exchange=exchange_of(dialect))
            return None
        return None if isinstance(self.downlinks, str) else self.downlinks

    @property
    def one_owner(self) -> bool:
        """See `ConnectionConfig`."""
        return not self.share

    @classmethod
    def carries(cls, dialect: Dialect) -> list[Problem]:
        """See `ConnectionConfig`."""
        if not isinstance(dialect, KnowsItsBroker):
            return []
        message = f"{dialect.name} comes from its platform's own MQTT broker"
        return [Problem(("transport",), message, "`transport: mqtt`", 0)]

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:
        """See `ConnectionConfig`."""
        problems = []
        if isinstance(dialect, OverMqtt):
            problems += self._of_topics(dialect, options)
        elif isinstance(self.downlinks, AmqpDownlinks):
            problems += self._of_downlinks(self.downlinks, dialect, options)
        if self.share:
            message = (
                "workers that share a queue get a device's messages side by side: their order is"
                " not kept"
            )
            problems.append(Problem(("connection", "share"), message, "", 0, warns=True))
        return problems

    def _of_topics(self, dialect: Dialect, options: Any) -> list[Problem]:
        assert isinstance(dialect, OverMqtt)
        problems = []
        if self.routing_key:
            message = f"{dialect.name} reads its own topics, the words of a key as levels"
            hint = "leave `routing_key` out"
            problems.append(Problem(("connection", "routing_key"), message, hint, 0))
        for each in dialect.topics(options):
            if "." in each:
                message = f"a dot in `{each}` would be read as another level: keys have dots there"
                hint = "choose a topic without dots"
                problems.append(Problem(("options",), message, hint, 0))
        return problems

    @staticmethod
    def _of_downlinks(given: AmqpDownlinks, dialect: Dialect, options: Any) -> list[Problem]:
        place = ("connection", "downlinks")
        if not isinstance(options, HttpOptions):
            message = f"{dialect.name} posts its downlinks to its network server"
            return [Problem(place, message, "leave `downlinks` out", 0)]
        if not given.routing_key:
            hint = "as `routing_key: plant.{device_id}.down`"
            return [Problem(place, "names no routing key", hint, 0)]
        return []

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:
        """See `ConnectionConfig`."""
        over = isinstance(dialect, OverMqtt)
        exchange = exchange_of(dialect) if over else "plant"
        key = "" if over else ", keys: [plant.*.up]"
        lines = [
            "  server: amqps://rabbit.example.com:5671   # amqp:// without TLS; /name: its host",
            f'  user: "${{env:{variable}_USER}}"',
            f'  password: "${{env:{variable}_PASSWORD}}"',
            "  # tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}",
            "  # queue: a-name             # of its own by default",
            f"  bindings: [{{exchange: {exchange}{key}}}]",
        ]
        if not over:
            lines.append(
                "  # routing_key: plant.{device_id}.up   # `options: device_query: device_id`"
            )
        return [
            *lines,
            "  # silence_max: 1h           # so long without a message is a fault",
            "  # share: true               # several workers; the order is not kept then",
        ]


def exchange_of(dialect: Dialect) -> str:
    """Return the exchange of a dialect that MQTT carries."""
    return EXCHANGES.get(dialect.name, TOPIC_EXCHANGE)
