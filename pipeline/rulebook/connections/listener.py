"""What every `connection:` has at which Funicular listens itself: TCP, UDP, CoAP."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from pipeline.integrations.dialect import Dialect, OverMqtt
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.device_naming import DeviceNaming, Tokens
from pipeline.rulebook.connections.framing import FramingConfig
from pipeline.rulebook.connections.octets import Octets

DEVICE = "device"
"""The query's parameter in which the device's name goes to the dialect."""
PEERS_MAX = 1_000


class ListenerConfig(ConnectionConfig, Tokens):
    """Where it listens and to whom.

    `host`: this machine's address; `0.0.0.0` or `::` are all of them. `share_port`: several
    workers of one machine may listen there. `peers`: networks that may send (`10.0.0.0/8`); none
    named: all. `token` and `tokens` (by device): what a device must show.
    """

    answers: ClassVar[bool] = True
    stays_open: ClassVar[bool] = True

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)]
    share_port: bool = False
    peers: Annotated[tuple[str, ...], Field(max_length=PEERS_MAX)] = ()

    @field_validator("port", mode="before")
    @classmethod
    def _a_number(cls, port: object) -> object:
        return int(port) if isinstance(port, str) and port.isascii() and port.isdigit() else port

    @field_validator("peers", mode="before")
    @classmethod
    def _one_or_more(cls, peers: object) -> object:
        return (peers,) if isinstance(peers, str) else peers

    @field_validator("peers")
    @classmethod
    def _are_networks(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for peer in peers:
            try:
                ip_network(peer)
            except ValueError:
                raise ValueError(f"`{peer}` is no network or address, as 10.0.0.0/8") from None
        return peers

    @classmethod
    def carries(cls, dialect: Dialect) -> list[Problem]:
        """See `ConnectionConfig`."""
        if dialect.name == "mqtt" and isinstance(dialect, OverMqtt):
            message = "its messages are named by topics, which there are none of here"
            return [Problem(("transport",), message, "for bytes of your own: `dialect: http`", 0)]
        return []


class BytesListenerConfig(ListenerConfig):
    """Where devices send bytes without an envelope: TCP, UDP.

    `framing`: how messages are told apart. `device`: how they name their device; left out where
    the dialect or the converter finds it in them. `acknowledge`: what the device gets, as it is,
    for each message once it is durable.
    """

    framing: FramingConfig | None = None
    device: DeviceNaming | None = None
    acknowledge: Octets | None = None

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:  # noqa: ARG002
        """See `ConnectionConfig`."""
        if self.device is None or getattr(options, "device_query", None) == DEVICE:
            return []
        message = "the connection names the device, and the dialect does not look there"
        return [Problem(("options",), message, f"`options: {{device_query: {DEVICE}}}`", 0)]


class Networks:
    """Networks that may send, made once."""

    def __init__(self, peers: tuple[str, ...]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(peer) for peer in peers]

    def admit(self, address: str) -> bool:
        """Return whether an address may send."""
        if not self._networks:
            return True
        found: Any = ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)
