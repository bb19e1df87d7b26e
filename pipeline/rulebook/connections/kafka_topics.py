"""An integration's `connection:` with `transport: kafka`: which topics of which Kafka."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.integrations.dialect import Dialect
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.kafka_cluster import KafkaClusterConfig
from pipeline.rulebook.duration import Duration

MIB = 1024 * 1024
NAME_LENGTH_MAX = 249
_Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=NAME_LENGTH_MAX)]


class KafkaSourceConfig(KafkaClusterConfig, ConnectionConfig):
    """`servers`, `security`, `tls`, `sasl`: as of the sink `kafka`.

    `topics`: their names; or `pattern`, a regular expression that whole names match. `group`: the
    consumer group, `funicular-<tenant>-<integration>` unless it is named; all ingest workers share
    it. `start`: where a new group begins, at the `latest` record or the `earliest`. `cluster`: a
    name of this Kafka, by which a record is known when it comes again; the integration's own unless
    two integrations read the same topics. `silence_max`: so long without a record is a fault.
    `fetch_bytes_max`: of one fetch, all partitions.
    """

    topics: tuple[_Topic, ...] = Field(default=(), max_length=1_000)
    pattern: str = Field(default="", max_length=1_000)
    group: str = Field(default="", max_length=255)
    cluster: str = Field(default="", max_length=100)
    start: Literal["latest", "earliest"] = "latest"
    session_timeout: Annotated[Duration, Field(ge=1, le=300)] = 10.0
    connect_timeout: Annotated[Duration, Field(gt=0, le=120)] = 10.0
    silence_max: Annotated[Duration, Field(ge=1)] | None = None
    fetch_bytes_max: Annotated[int, Field(ge=1_024, le=256 * MIB)] = 8 * MIB

    @field_validator("topics", mode="before")
    @classmethod
    def _one_or_more(cls, topics: object) -> object:
        return (topics,) if isinstance(topics, str) else topics

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _names_topics(self) -> Self:
        if bool(self.topics) == bool(self.pattern):
            raise ValueError("name `topics`, or a `pattern` of their names: one of the two")
        return self

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:
        """See `ConnectionConfig`."""
        topic = "chirpstack" if dialect.name.startswith("chirpstack") else "iot.uplinks"
        password = f'"${{env:{variable}_PASSWORD}}"'
        return [
            "  servers: kafka1.example.com:9092,kafka2.example.com:9092",
            "  security: tls               # plaintext without TLS",
            f"  sasl: {{mechanism: SCRAM-SHA-512, user: funicular, password: {password}}}",
            "  # tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}",
            f"  topics: [{topic}]            # or pattern: iot\\..*",
            "  start: latest               # a new group's; or earliest",
            "  # silence_max: 1h           # so long without a record is a fault",
        ]
