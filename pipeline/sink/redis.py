"""Transport `redis`: each delivery an entry of a stream, with its `id`.

In: `delivery.<tenant>.<sink>`. Out: `XADD`, a batch in one `MULTI`. Streams are cut to about
`length` entries, the oldest go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import RetryableError
from pipeline.model.delivery import Delivery
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.batches import make_all, merge, too_large
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.formats.shaped import time_text
from pipeline.sink.library import check_library
from pipeline.sink.naming import Name, check_name
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict
from pipeline.sink.urls import parts_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

VALUE_BYTES_MAX = 512 << 20  # the server's own default (`proto-max-bulk-len`)


class RedisConfig(Part):
    """Streams of Redis: `sinks/<name>.yaml`.

    ```yaml
    transport: redis
    url: rediss://funicular:${env:REDIS_PASSWORD}@redis.example.com:6379/0  # redis:// without TLS
    tls: {ca_file: ca.pem}
    stream: uplinks             # or with {device} {tenant} {sink} {type} {integration} …
    length: 1000000             # entries that stay, about; 0: all
    format: plain
    batch: 500                  # entries of one transaction
    timeout: 10s                # for it
    ```
    Fields of an entry: `id`, `device`, `time`, `content_type`, `body`, and with CloudEvents in
    binary mode its attributes as `ce_…`.
    """

    url: SecretStr = Field(max_length=4_096)
    tls: TlsConfig | None = None
    stream: str = Field(min_length=1, max_length=1_024)
    length: int = Field(default=1_000_000, ge=0, le=1 << 40)
    format: Format = PLAIN
    bytes_max: ByteCount = Field(default=VALUE_BYTES_MAX, ge=1, le=VALUE_BYTES_MAX)
    batch: int = Field(default=500, ge=1, le=10_000)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: SecretStr) -> SecretStr:
        wanted = "must be an address as rediss://user@host:6379/0"
        parts = parts_of(url.get_secret_value(), {"redis", "rediss"}, wanted)
        if parts.query or not (parts.path.strip("/") or "0").isdigit():
            raise ValueError(f"{wanted}: after the host stands the number of the database alone")
        return url

    @field_validator("stream")
    @classmethod
    def _is_a_name(cls, stream: str) -> str:
        return check_name(stream)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_library("redis", "redis")
        if self.tls is not None and urlsplit(self.url.get_secret_value()).scheme != "rediss":
            raise ValueError("`tls` needs a url as rediss://…")
        return self


class RedisSink:
    """See `transport.Transport`. One connection; a batch is added as a whole or not at all."""

    name: ClassVar[str] = "redis"
    Config: ClassVar[type[BaseModel]] = RedisConfig

    def __init__(self, config: RedisConfig, context: Context) -> None:
        self._config = config
        self._shape = config.format.shape(context.tenant, context.destination)
        self._stream = Name(config.stream, str)
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._redis: Redis | None = None

    async def open(self) -> None:
        """Connect. RetryableError: not now."""
        if self._redis is None:
            self._redis = self._client()
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(self._config.timeout):
                await self._redis.ping()
        except (RedisError, OSError) as error:
            await self.close()
            raise _not_now(error) from None

    def _client(self) -> Redis:
        from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection  # noqa: PLC0415 - an extra

        config = self._config
        parts = urlsplit(config.url.get_secret_value())
        secure = parts.scheme == "rediss"
        pool = ConnectionPool(
            connection_class=SSLConnection if secure else Connection,
            max_connections=2,
            host=parts.hostname,
            port=parts.port or 6379,
            db=int(parts.path.strip("/") or 0),
            username=unquote(parts.username or "") or None,
            password=unquote(parts.password or "") or None,
            socket_timeout=config.timeout,
            socket_connect_timeout=config.timeout,
            retry=None,  # what may have arrived is repeated by the destination, in order
            client_name="funicular",
            **(_secured(config.tls) if secure else {}),
        )
        return Redis(connection_pool=pool)

    async def close(self) -> None:
        """Disconnect."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()
            await redis.connection_pool.disconnect()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Add all in one transaction."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

        if self._redis is None:
            await self.open()
        assert self._redis is not None
        entries, results = make_all(batch, self._entry)
        if not entries:
            return results
        try:
            async with asyncio.timeout(self._config.timeout):
                pipeline = self._redis.pipeline(transaction=True)
                length = self._config.length or None
                for stream, fields in entries:
                    pipeline.xadd(stream, fields, maxlen=length, approximate=True)
                answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            await self.close()
            raise _not_now(error) from None
        return merge(results, [_result(answer) for answer in answers])

    def _entry(self, delivery: Delivery) -> tuple[str, dict[Any, Any]]:
        shaped = self._shape(delivery)
        if len(shaped.body) > self._config.bytes_max:
            raise too_large(len(shaped.body), self._config.bytes_max)
        fields: dict[Any, Any] = {
            "id": delivery.id,
            "device": delivery.device,
            "time": time_text(delivery),
            "content_type": shaped.content_type,
            "body": shaped.body,
        }
        for name, value in shaped.attributes.items():
            fields[f"ce_{name}"] = value
        return self._stream(delivery), fields


def _secured(tls: TlsConfig | None) -> dict[str, Any]:
    files = tls or TlsConfig()
    password = files.key_password.get_secret_value() if files.key_password else None
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": files.ca_file or None,
        "ssl_certfile": files.certificate_file or None,
        "ssl_keyfile": files.key_file or files.certificate_file or None,
        "ssl_password": password,
    }


def _result(answer: Any) -> Result:
    if not isinstance(answer, Exception):
        return DELIVERED
    # A key of another type, a command that is not allowed: the stream is at fault, no message.
    return Result(Verdict.POSTPONED, "redis", f"Redis does not take it: {answer}")


def _not_now(error: Exception) -> RetryableError:
    """Return the world's fault; the client's texts have addresses and codes, no password. Of a
    transaction they begin with a command and its data, which is left out.
    """
    said = str(error).rpartition(" of pipeline caused error: ")[2] or type(error).__name__
    return RetryableError(f"Redis cannot be used: {said}", code="redis")


TRANSPORT = RedisSink
