"""Transport `postgresql`: each delivery a row `(time, id, device, body)`, copied in batches.

In: `delivery.<tenant>.<sink>`. Out: rows of a table that is made where it is missing; a hypertable
where the database has TimescaleDB. A repeat has the same time and id, and adds no row.

The client is asyncpg (Apache 2.0): it copies in the binary format without a buffer of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.model.delivery import Delivery
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig, tls_context
from pipeline.sink.batches import make_all, merge, too_large, write_halving
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.formats.shaped import time_ms
from pipeline.sink.library import check_library
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import Context, Result

if TYPE_CHECKING:
    import asyncpg

BODY_BYTES_MAX = 255 << 20  # the server's own limit of a jsonb value is a little above
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = ("time", "id", "device", "body")
_STAGE = "funicular_batch"  # a temporary table, of one connection
# Classes of SQLSTATE (PostgreSQL, appendix A) that blame the data, not the table or the server.
_OF_MESSAGE = ("22", "23")
_TOO_COMPLEX = frozenset({"54000", "54001"})  # a value over a limit: nested too deep, too many keys

Row = tuple[datetime, str, str, str]


class PostgresqlConfig(Part):
    """A table of PostgreSQL or TimescaleDB: `sinks/<name>.yaml`.

    ```yaml
    transport: postgresql
    url: postgresql://funicular:${env:DATABASE_PASSWORD}@db.example.com:5432/iot
    tls: {ca_file: ca.pem}      # without it: no TLS, save with `sslmode=require` in the url
    table: messages             # or schema.messages
    create: true                # made where it is missing: time, id, device, body (jsonb)
    hypertable: 1d              # width of a chunk, where TimescaleDB is there; 0: a plain table
    format: plain
    batch: 1000                 # rows of one transaction
    timeout: 30s                # for it
    retry: {first: 1s, factor: 2, max: 1m, jitter: 0.5}
    ```
    """

    url: SecretStr = Field(max_length=4_096)
    tls: TlsConfig | None = None
    table: str = Field(
        default="messages", max_length=127, pattern=r"^[A-Za-z_]\w{0,62}(\.[A-Za-z_]\w{0,62})?$"
    )
    create: bool = True
    hypertable: Seconds = Field(default=86_400.0, ge=0, le=366 * 86_400)
    format: Format = PLAIN
    bytes_max: ByteCount = Field(default=BODY_BYTES_MAX, ge=1, le=BODY_BYTES_MAX)
    batch: int = Field(default=1_000, ge=1, le=100_000)
    timeout: Seconds = Field(default=30.0, gt=0, le=600)
    connect_timeout: Seconds = Field(default=10.0, gt=0, le=120)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("url")
    @classmethod
    def _is_a_database(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            port = parts.port
        except ValueError:
            raise ValueError("must be an address as postgresql://user@host:5432/database") from None
        if parts.scheme not in {"postgresql", "postgres"} or port == 0:
            raise ValueError("must be an address as postgresql://user@host:5432/database")
        for name, _ in parse_qsl(parts.query):
            if name not in {"sslmode", "host", "port", "application_name"}:
                raise ValueError(f"the url's `{name}` is not known here; sslmode is")
        return url

    @model_validator(mode="after")
    def _has_its_library(self) -> Self:
        check_library("asyncpg", "postgresql")
        return self


class PostgresqlSink:
    """See `transport.Transport`. One connection; a batch is one transaction."""

    name: ClassVar[str] = "postgresql"
    Config: ClassVar[type[BaseModel]] = PostgresqlConfig

    def __init__(self, config: PostgresqlConfig, context: Context) -> None:
        self._config = config
        self._shape = config.format.shape(context.tenant, context.destination)
        self._table = ".".join(f'"{part}"' for part in config.table.split("."))
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._connection: asyncpg.Connection | None = None

    async def open(self) -> None:
        """Connect, and make the table. RetryableError: not now."""
        if self._connection is not None and not self._connection.is_closed():
            return
        await self.close()
        import asyncpg  # noqa: PLC0415 - an extra

        config = self._config
        try:
            async with asyncio.timeout(config.connect_timeout + config.timeout):
                connection = await asyncpg.connect(
                    config.url.get_secret_value(),
                    timeout=config.connect_timeout,
                    **({"ssl": self._tls()} if config.tls is not None else {}),
                )
                self._connection = connection
                await self._prepare(connection)
        except BaseException as error:
            self._drop()
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None

    def _tls(self) -> ssl.SSLContext:
        return tls_context(self._config.tls)

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        if self._config.create:
            async with connection.transaction():
                # Two workers that make the table at one moment would disturb each other.
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtext($1))", f"funicular {self._table}"
                )
                await self._create(connection)
        await connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS {_STAGE}"
            " (time timestamptz, id text, device text, body text) ON COMMIT DELETE ROWS"
        )

    async def _create(self, connection: asyncpg.Connection) -> None:
        there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", self._table)
        if there:
            return
        await connection.execute(
            f"CREATE TABLE {self._table} (time timestamptz NOT NULL, id text NOT NULL,"
            " device text NOT NULL, body jsonb, PRIMARY KEY (time, id))"
        )
        await connection.execute(f"CREATE INDEX ON {self._table} (device, time DESC)")
        width_s = self._config.hypertable
        if width_s and await connection.fetchval(_HAS_TIMESCALE):
            await connection.execute(
                "SELECT create_hypertable("
                "$1::regclass, 'time', chunk_time_interval => $2::interval)",
                self._table,
                timedelta(seconds=width_s),
            )

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed():
            return
        import asyncpg  # noqa: PLC0415 - an extra

        try:
            await connection.close(timeout=self._config.connect_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()

    def _drop(self) -> None:
        """Cut the connection: what was under way in it is undone by the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Copy all in one transaction; where the data is at fault, in halves."""
        await self.open()
        rows, results = make_all(batch, self._row)
        return merge(results, await write_halving(rows, self._write))

    def _row(self, delivery: Delivery) -> Row:
        body = self._shape(delivery).body
        if len(body) > self._config.bytes_max:
            raise too_large(len(body), self._config.bytes_max)
        text = body.decode(errors="replace")
        for value in (delivery.id, delivery.device):
            if "\0" in value:
                raise MessageError("PostgreSQL's text cannot hold the character NUL", code="nul")
        try:
            time = _EPOCH + timedelta(milliseconds=time_ms(delivery))
        except OverflowError:
            raise MessageError("its time is past the year 9999", code="time") from None
        return time, delivery.id, delivery.device, text

    async def _write(self, rows: Sequence[Row]) -> None:
        """MessageError: the data is at fault, and nothing was written."""
        connection = self._connection
        assert connection is not None, "open() comes first"
        try:
            async with asyncio.timeout(self._config.timeout), connection.transaction():
                await connection.copy_records_to_table(_STAGE, records=rows, columns=_COLUMNS)
                await connection.execute(
                    f"INSERT INTO {self._table} (time, id, device, body)"  # noqa: S608 - checked by a pattern
                    f" SELECT time, id, device, body::jsonb FROM {_STAGE} ON CONFLICT DO NOTHING"
                )
        except BaseException as error:
            if (fault := _fault(error)) is not None:
                raise fault from None
            self._drop()
            if (not_now := _not_now(error)) is None:
                raise
            raise not_now from None


_HAS_TIMESCALE = "SELECT count(*) > 0 FROM pg_proc WHERE proname = 'create_hypertable'"


def _fault(error: BaseException) -> MessageError | None:
    """Return the error as the message's own, None where it is not."""
    code = getattr(error, "sqlstate", None)
    if not isinstance(code, str) or not (code[:2] in _OF_MESSAGE or code in _TOO_COMPLEX):
        return None
    return MessageError(f"the database refuses the row: {error}", code="row", sqlstate=code)


def _not_now(error: BaseException) -> RetryableError | None:
    """Return our own error for one of the world's, None for any other.

    Its text is the server's or the system's; neither shows the password.
    """
    import asyncpg  # noqa: PLC0415 - an extra

    if isinstance(error, TimeoutError):
        return RetryableError("the database did not answer in time", code="timeout")
    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
        said = str(error) or type(error).__name__
        return RetryableError(f"the database cannot be used: {said}", code="database")
    return None


TRANSPORT = PostgresqlSink
