"""A UDP server for devices: what a user writes of an integration with `transport: udp`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.integrations.dialect import Dialect
from pipeline.rulebook.connections.device_naming import HandshakeNaming, HeadNaming
from pipeline.rulebook.connections.listener import BytesListenerConfig
from pipeline.rulebook.duration import Duration

DATAGRAM_BYTES_MAX = 65_507  # what IPv4 leaves of 64 KiB


class UdpServerConfig(BytesListenerConfig):
    """An integration's `connection:`, with `transport: udp`.

    A datagram is a message, or, with `framing`, several. `device` and `acknowledge` as for TCP (a
    handshake there is none). `window`: so long after its last datagram a peer can be sent
    downlinks; `windows_max` peers are known at a time. `in_flight_max`: messages that are not
    durable yet; what comes past that is dropped and counted, as is what one peer sends past
    `in_flight_per_peer_max`.
    """

    window: Annotated[Duration, Field(ge=0.1, le=86_400)] = 30.0
    windows_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    in_flight_max: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    in_flight_per_peer_max: Annotated[int, Field(ge=1, le=100_000)] = 1_000

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if isinstance(self.device, HandshakeNaming):
            raise ValueError(  # noqa: TRY004 - pydantic reads ValueErrors
                "`handshake` is of connections, which UDP has none of: `device: {head: …}` names"
                " the device in each datagram"
            )
        if self.wanted and not isinstance(self.device, HeadNaming):
            raise ValueError("`token` and `tokens` are shown in a head: `device: {head: …}`")
        return self

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003
        """See `ConnectionConfig`."""
        return [
            "  # host: 0.0.0.0               # by default this machine alone can send",
            "  port: 5000",
            "  # device: {offset: 0, length: 8}   # and `options: {device_query: device}`",
            '  # device: {head: ";"}         # name;token;message',
            f'  # token: "${{env:{variable}_TOKEN}}"',
            "  # window: 30s                 # so long after a datagram its sender can be answered",
            '  # acknowledge: {hex: "06"}    # for each message, once it is durable',
        ]
