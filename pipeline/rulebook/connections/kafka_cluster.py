"""How another system's Kafka is reached: what a user writes, of a sink or of an integration."""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig, tls_context

LIBRARY = "aiokafka"


class SaslConfig(Part):
    """`sasl:`, who we are to it."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    user: str = Field(min_length=1, max_length=256)
    password: SecretStr


class KafkaClusterConfig(Part):
    """`servers: host:9092,host:9092`, `security` (`plaintext`, or `tls`), `tls`, `sasl`."""

    servers: str = Field(min_length=1, max_length=4_096)
    security: Literal["plaintext", "tls"] = "plaintext"
    tls: TlsConfig | None = None
    sasl: SaslConfig | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if find_spec(LIBRARY) is None:
            raise ValueError("Kafka needs a library: pip install 'funicular[kafka]'")
        if self.tls is not None and self.security != "tls":
            raise ValueError("`tls` needs `security: tls`")
        return self

    def client_options(self) -> dict[str, Any]:
        """Return the options of every aiokafka client; they hold secrets. RetryableError `tls`: a
        file cannot be used.
        """
        secure = self.security == "tls"
        context: ssl.SSLContext | None = tls_context(self.tls) if secure else None
        options: dict[str, Any] = {"bootstrap_servers": self.servers, "ssl_context": context}
        if self.sasl is None:
            return options | {"security_protocol": "SSL" if secure else "PLAINTEXT"}
        return options | {
            "security_protocol": "SASL_SSL" if secure else "SASL_PLAINTEXT",
            "sasl_mechanism": self.sasl.mechanism,
            "sasl_plain_username": self.sasl.user,
            "sasl_plain_password": self.sasl.password.get_secret_value(),
        }
