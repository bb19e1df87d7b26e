"""A CoAP server for devices: what a user writes of an integration with `transport: coap`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator

from pipeline.integrations.dialect import Dialect
from pipeline.part import Part
from pipeline.rulebook.connections.listener import ListenerConfig
from pipeline.rulebook.duration import Duration

LIBRARY = "aiocoap"
DTLS_LIBRARY = "DTLSSocket"
PSK_IDENTITIES_MAX = 10_000
COAP_PORT = 5683
COAPS_PORT = 5684


class DtlsConfig(Part):
    """`{keys: {identity: "${env:KEY}"}}`: pre-shared keys, by the identity that a device shows."""

    keys: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=128)], SecretStr],
        Field(min_length=1, max_length=PSK_IDENTITIES_MAX),
    ]


class CoapServerConfig(ListenerConfig):
    """An integration's `connection:`, with `transport: coap`.

    `path`: before the device's name, by default the integration's name. `observers_max` devices
    may observe their downlinks at a time, each for `observe_lifetime` after it has asked.
    `transfers_max`: messages that come in blocks and are not whole yet. `dtls`: only over DTLS,
    by default at port 5684.
    """

    port: Annotated[int, Field(ge=1, le=65_535)] = COAP_PORT
    path: Annotated[str, StringConstraints(pattern=r"^[^/?#]+(/[^/?#]+)*$", max_length=255)] = ""
    observers_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    observe_lifetime: Annotated[Duration, Field(ge=1, le=30 * 86_400)] = 86_400.0
    transfers_max: Annotated[int, Field(ge=1, le=10_000)] = 100
    dtls: DtlsConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_port(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("dtls") and "port" not in given:
            return {**given, "port": COAPS_PORT}
        return given

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if find_spec(LIBRARY) is None:
            raise ValueError("CoAP needs a library: pip install 'funicular[coap]'")
        if self.dtls is not None and find_spec(DTLS_LIBRARY) is None:
            raise ValueError(
                "CoAP over DTLS needs a library: pip install DTLSSocket (it is built on this"
                " machine, which needs autoconf and a C compiler)"
            )
        if self.share_port:
            raise ValueError("`share_port` is not for CoAP: messages in blocks need one server")
        return self

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003
        """See `ConnectionConfig`."""
        return [
            "  # host: 0.0.0.0              # by default this machine alone can send",
            "  port: 5683",
            "  # devices post to coap://HOST/PATH/DEVICE/TOKEN; `options: {device_query: device}`",
            f'  # token: "${{env:{variable}_TOKEN}}"',
            "  # path: meters               # by default the integration's name",
            f'  # dtls: {{keys: {{an-identity: "${{env:{variable}_PSK}}"}}}}',
        ]


def psk_credentials(dtls: DtlsConfig) -> dict[str, dict[str, Any]]:
    """Return the pre-shared keys by their identity, as the library reads them. They are secrets."""
    return {
        identity: {
            "dtls": {
                "psk": {"ascii": key.get_secret_value()},
                "client-identity": {"ascii": identity},
            }
        }
        for identity, key in dtls.keys.items()
    }
