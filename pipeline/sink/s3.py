"""Transport `s3`: deliveries as JSON lines or Parquet in objects of S3, or of what speaks like it.

In: `delivery.<tenant>.<sink>`. Out: one object for what comes within `every`, or for `records` or
`bytes` of it; its lines are as those of the transport `file`. A delivery counts once its object is
stored. After a crash some are written again, in another object, with the same `id`.

Requests are signed by botocore, which is AWS's own; they leave as all our requests do (`calls.py`).
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import RetryableError
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink import parquet
from pipeline.sink.batches import make_all, merge
from pipeline.sink.calls import USER_AGENT, Caller, judge, unanswered
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.formats.shaped import time_text
from pipeline.sink.library import check_library
from pipeline.sink.lines import line_of
from pipeline.sink.naming import check_name
from pipeline.sink.parquet import ParquetColumns
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict
from pipeline.sink.urls import WEB, parts_of

_LEVEL = 6  # gzip's own default: half the size of level 1, at a third of its speed
_PREFIX_NAMES = ("tenant", "sink")


class S3Config(ParquetColumns):
    """Objects of S3: `sinks/<name>.yaml`.

    ```yaml
    transport: s3
    url: https://s3.eu-central-1.amazonaws.com   # or that of MinIO, Ceph, Garage, R2, …
    tls: {ca_file: ca.pem}
    region: eu-central-1
    bucket: iot-archive
    addressing: path            # virtual: the bucket in the host's name
    access_key: ${env:S3_ACCESS_KEY}
    secret_key: ${env:S3_SECRET_KEY}
    prefix: "{tenant}/{sink}/"  # then <year>/<month>/<day>/<time>-<hash>.jsonl.gz
    every: 10s                  # an object for what came in this time
    records: 4000               # or for so many deliveries
    bytes: 16MB                 # or for so much of them, uncompressed
    compression: gzip           # or none; of Parquet also zstd
    objects: parquet            # or lines, the default; columns are of Parquet alone
    columns: {temperature: {type: double, path: telemetry.temperature}}
    format: plain               # of the member `body`
    timeout: 30s                # for one request
    ```
    A line: `{"id", "device", "time", "body"}`. `objects: parquet` (it needs `pip install
    'funicular[parquet]'` too) has these as columns, `body` as JSON in text, and those of `columns`:
    `double`, `int`, `bool` or `string` members of the body.
    """

    url: str = Field(max_length=4_096)
    tls: TlsConfig | None = None
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,64}$")
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    addressing: Literal["path", "virtual"] = "path"
    access_key: SecretStr = Field(min_length=1, max_length=256)
    secret_key: SecretStr = Field(min_length=1, max_length=1_024)
    session_token: SecretStr | None = None
    prefix: str = Field(default="{tenant}/{sink}/", max_length=500)
    every: Seconds = Field(default=10.0, ge=0.01, le=3_600)
    records: int = Field(default=4_000, ge=1, le=1_000_000)
    bytes: ByteCount = Field(default=16_000_000, ge=1_000, le=1 << 30)
    compression: Literal["gzip", "zstd", "none"] = "gzip"
    objects: Literal["lines", "parquet"] = "lines"
    format: Format = PLAIN
    timeout: Seconds = Field(default=30.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: str) -> str:
        parts = parts_of(
            url, WEB, "write a full web address, as https://s3.eu-central-1.amazonaws.com"
        )
        if parts.username or parts.query or parts.path.strip("/"):
            raise ValueError("must be the service's address alone, without bucket and keys")
        return url.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _is_a_prefix(cls, prefix: str) -> str:
        return check_name(prefix, known=_PREFIX_NAMES)

    @model_validator(mode="after")
    def _has_its_library(self) -> Self:
        check_library("botocore", "s3")
        if self.objects == "parquet":
            check_library("pyarrow", "parquet", "`objects: parquet`")
        elif self.columns or self.compression == "zstd":
            raise ValueError("`columns` and `compression: zstd` are for `objects: parquet`")
        return self


class _Open:
    """The object that is being filled; `outcome` is what became of it."""

    __slots__ = ("lines", "outcome", "size", "timer")

    timer: asyncio.TimerHandle

    def __init__(self, outcome: asyncio.Future[Result]) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self.size = 0
        self.outcome = outcome


class S3Sink:
    """See `transport.Transport`. Many calls of `deliver` wait for one object together."""

    name: ClassVar[str] = "s3"
    Config: ClassVar[type[BaseModel]] = S3Config

    def __init__(self, config: S3Config, context: Context) -> None:
        self._config = config
        self._context = context
        settings = context.settings
        self._shape = config.format.shape(context.tenant, context.destination)
        # What is waited for stays in the window of records: past half of it, it is written at once.
        self._records_max = min(config.records, max(1, settings.waiting_records_max // 2))
        self._bytes_max = min(config.bytes, settings.waiting_bytes_max // 2)
        self.deliveries_max = self._records_max
        self.concurrency = max(1, settings.waiting_records_max)
        self.retry = config.retry
        self._caller = Caller(timeout_s=config.timeout, settings=context.settings, tls=config.tls)
        self._open: _Open | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._place = _Place(config, context)

    async def open(self) -> None:
        """Make the connection pool. RetryableError: a certificate cannot be used."""
        await self._caller.open()

    async def close(self) -> None:
        """Close the connections; what was not stored is given up."""
        one, self._open = self._open, None
        if one is not None:
            one.timer.cancel()
            one.outcome.cancel()
        writing, self._writing = self._writing, set()
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        await self._caller.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Put all into the object that is open, and wait until it is stored."""
        await self.open()
        lines, results = make_all(batch, self._line)
        if not lines:
            return results
        one = self._open or self._begin()
        one.lines += lines
        one.size += sum(len(line) for _, line in lines)
        if len(one.lines) >= self._records_max or one.size >= self._bytes_max:
            self._end(one)
        # Shielded: who is cancelled takes nobody's object along.
        result = await asyncio.shield(one.outcome)
        return merge(results, [result] * len(lines))

    def _line(self, delivery: Delivery) -> tuple[str, bytes]:
        shaped = self._shape(delivery)
        body: Any = msgspec.Raw(shaped.body)
        if "json" not in shaped.content_type or b"\n" in shaped.body:
            body = shaped.body.decode(errors="replace")
        return delivery.id, line_of(delivery, time_text(delivery), body)

    def _begin(self) -> _Open:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Result] = loop.create_future()
        one = _Open(outcome)
        one.timer = loop.call_later(self._config.every, self._end, one)
        self._open = one
        return one

    def _end(self, one: _Open) -> None:
        """Store an object, once: it takes no more."""
        one.timer.cancel()
        if self._open is one:
            self._open = None
            task = asyncio.get_running_loop().create_task(self._store(one))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _store(self, one: _Open) -> None:
        try:
            result = await self._put(one)
        except BaseException as error:
            if not one.outcome.done():
                if isinstance(error, Exception):
                    one.outcome.set_exception(error)
                else:
                    one.outcome.cancel()
            raise
        if not one.outcome.done():
            one.outcome.set_result(result)

    async def _put(self, one: _Open) -> Result:
        # In a thread, as 16 MB take half a second.
        content = await asyncio.to_thread(_content, self._config, [line for _, line in one.lines])
        call = self._place.put(content, [name for name, _ in one.lines])
        try:
            answer = await self._caller.call(call)
        except RetryableError as error:
            return unanswered(error)
        result = judge(
            answer,
            now_ms=self._context.now_ms(),
            pause_s_max=self._context.settings.retry_after_s_max,
        )
        if result.verdict is Verdict.DELIVERED:
            return DELIVERED
        # No single delivery is to blame for what becomes of an object: keys, bucket, quota are.
        detail = result.detail
        said = str(detail.get("response", ""))[:300]
        message = f"{result.message}: {said}" if said else result.message
        return Result(Verdict.POSTPONED, "s3", message, detail, result.pause_s, result.uncertain)


def _content(config: S3Config, lines: Sequence[bytes]) -> bytes:
    """Return an object's bytes."""
    if config.objects == "parquet":
        return parquet.encode(lines, config.columns, config.compression)
    content = b"\n".join(lines) + b"\n"
    # Without a time in its head, the same lines are the same bytes.
    return content if config.compression == "none" else gzip.compress(content, _LEVEL, mtime=0)


def _kind(config: S3Config) -> tuple[str, str]:
    """Return an object's media type, and the end of its name."""
    if config.objects == "parquet":
        return parquet.CONTENT_TYPE, ".parquet"
    if config.compression == "none":
        return "application/x-ndjson", ".jsonl"
    return "application/gzip", ".jsonl.gz"


class _Place:
    """Where objects go: names, addresses, signatures."""

    def __init__(self, config: S3Config, context: Context) -> None:
        self._config = config
        self._now_ms = context.now_ms
        self._prefix = config.prefix.replace("{tenant}", context.tenant).replace(
            "{sink}", context.destination
        )
        parts = urlsplit(config.url)
        self._address = f"{config.url}/{config.bucket}"
        if config.addressing == "virtual":
            self._address = f"{parts.scheme}://{config.bucket}.{parts.netloc}"

    def put(self, content: bytes, ids: Sequence[str]) -> Call:
        """Return the signed request that stores an object. The same deliveries at the same time
        make the same name.
        """
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - an extra
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - an extra
        from botocore.credentials import Credentials  # noqa: PLC0415 - an extra

        config = self._config
        token = config.session_token.get_secret_value() if config.session_token else None
        keys = Credentials(
            config.access_key.get_secret_value(), config.secret_key.get_secret_value(), token
        )
        media_type, ending = _kind(config)
        headers = {"content-type": media_type}
        url = f"{self._address}/{quote(self._name(ids) + ending, safe='/-._~')}"
        request = AWSRequest(method="PUT", url=url, data=content, headers=headers)
        request.context["payload_signing_enabled"] = True
        S3SigV4Auth(keys, "s3", config.region).add_auth(request)
        signed = {name.lower(): str(value) for name, value in request.headers.items()}
        return Call(url, content, "PUT", signed | {"user-agent": USER_AGENT})

    def _name(self, ids: Sequence[str]) -> str:
        now = datetime.fromtimestamp(self._now_ms() / 1_000, UTC)
        mark = blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
        stamp = now.strftime("%Y/%m/%d/%H%M%S")
        return f"{self._prefix}{stamp}-{mark}"


TRANSPORT = S3Sink
