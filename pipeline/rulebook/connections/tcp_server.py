"""A TCP server for devices: what a user writes of an integration with `transport: tcp`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.integrations.dialect import Dialect
from pipeline.rulebook.connections.device_naming import HandshakeNaming, HeadNaming
from pipeline.rulebook.connections.framing import FramingConfig
from pipeline.rulebook.connections.listener import BytesListenerConfig
from pipeline.rulebook.connections.server_tls import ServerTlsConfig
from pipeline.rulebook.duration import Duration


class TcpServerConfig(BytesListenerConfig):
    """An integration's `connection:`, with `transport: tcp`.

    `framing`: how messages are told apart. `device`: how they name their device; left out where
    the dialect or the converter finds it in them. `acknowledge`: what the device gets, as it is,
    for each message (and for its handshake) once it is durable. `tls`: over TLS.
    `connections_max`, `connections_per_peer_max`: one more is closed at once. `idle_timeout`:
    a connection without a byte for so long is closed; `frame_timeout`: one whose message takes
    longer from its first byte to its last; `write_timeout`: one that does not read what it is sent.
    """

    framing: FramingConfig
    tls: ServerTlsConfig | None = None
    connections_max: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    connections_per_peer_max: Annotated[int, Field(ge=1, le=100_000)] = 100
    idle_timeout: Annotated[Duration, Field(ge=1, le=7 * 86_400)] = 600.0
    frame_timeout: Annotated[Duration, Field(gt=0, le=3_600)] = 30.0
    write_timeout: Annotated[Duration, Field(gt=0, le=300)] = 5.0
    frame_bytes_max: Annotated[int, Field(ge=1, le=1_048_576)] = 65_536

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        shown = isinstance(self.device, HeadNaming | HandshakeNaming)
        if self.wanted and not shown:
            raise ValueError(
                "`token` and `tokens` are shown in a handshake or a head: `device: {handshake: …}`"
            )
        return self

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003
        """See `ConnectionConfig`."""
        return [
            "  # host: 0.0.0.0               # by default this machine alone can connect",
            "  port: 5000",
            '  framing: {delimiter: "\\n"}    # or {length: 2}, {fixed: 16}',
            "  # device: {offset: 0, length: 8}   # and `options: {device_query: device}`",
            '  # device: {handshake: " "}    # the first frame is the name, and the token',
            f'  # token: "${{env:{variable}_TOKEN}}"',
            '  # acknowledge: {hex: "06"}    # for each message, once it is durable',
            "  # tls: {certificate_file: server.pem, key_file: server.key}",
        ]
