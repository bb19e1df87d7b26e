"""Transport `influxdb`: each message a point, as line protocol over HTTP; of versions 1, 2 and 3.

In: `delivery.<tenant>.<sink>`. Out: `POST /api/v2/write` (a bucket) or `/write` (a database). A
repeat has the same series and time, so that it writes the same point again. Points that InfluxDB
refuses (a field of another type) become dead letters, each by itself.

Format: "Line protocol reference" and "/api/v2/write", "/write" of InfluxDB's documentation.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.batches import make_all, merge, too_large, write_halving
from pipeline.sink.calls import USER_AGENT, Caller, judge, unanswered
from pipeline.sink.formats.shaped import time_ms, whole_message
from pipeline.sink.naming import Name, check_name
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import Context, Result, Verdict
from pipeline.sink.urls import WEB, parts_of

STRING_BYTES_MAX = 65_536  # of a field (64 KiB)
FIELDS_MAX = 10_000
DEPTH_MAX = 20
_INTEGER_MAX = 1 << 63
_OF_MESSAGE = frozenset({400, 413, 422})
_NAME = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ ", "\n": " ", "\r": " ", "\t": " "})
_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ ", "\n": " ", "\r": " ", "\t": " "})
_TEXT = str.maketrans({"\\": r"\\", '"': r"\""})


class InfluxdbConfig(Part):
    """InfluxDB: `sinks/<name>.yaml`.

    ```yaml
    transport: influxdb
    url: https://influxdb.example.com:8086
    tls: {ca_file: ca.pem}
    bucket: iot                 # version 2 and 3: with `org` and `token`
    org: acme
    token: ${env:INFLUX_TOKEN}
    # database: iot             # version 1: with `user` and `password`, and perhaps
    # retention_policy: year    # a retention policy
    measurement: "{device_type}"    # or {type} {integration} {tenant} {sink}; default: messages
    tags:                       # default: the device
      device: "{device}"
      application: "{application_id}"   # a tag that a message has no value for is left out
    integers: false             # true: whole numbers as integers; a field then never takes 21.5
    batch: 1000                 # points of one request
    timeout: 10s
    ```
    Fields: the telemetry of the whole message, or the body that a chain made; what is nested has
    names with dots.
    """

    url: str = Field(max_length=4_096)
    tls: TlsConfig | None = None
    bucket: str = Field(default="", max_length=1_000)
    org: str = Field(default="", max_length=1_000)
    token: SecretStr | None = None
    database: str = Field(default="", max_length=1_000)
    retention_policy: str = Field(default="", max_length=1_000)
    user: str = Field(default="", max_length=256)
    password: SecretStr | None = None
    measurement: str = Field(default="messages", min_length=1, max_length=1_000)
    tags: dict[str, str] = Field(default_factory=lambda: {"device": "{device}"}, max_length=50)
    integers: bool = False
    bytes_max: ByteCount = Field(default=1_000_000, ge=1_000, le=25_000_000)
    batch: int = Field(default=1_000, ge=1, le=10_000)
    concurrency: int = Field(default=2, ge=1, le=64)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))

    @field_validator("url")
    @classmethod
    def _is_a_server(cls, url: str) -> str:
        parts = parts_of(url, WEB, "write a full web address, as https://influxdb.example.com:8086")
        if parts.username or parts.query or parts.fragment:
            raise ValueError("who we are stands under `token`, or `user` and `password`")
        return url.rstrip("/")

    @field_validator("measurement")
    @classmethod
    def _is_a_name(cls, measurement: str) -> str:
        return check_name(measurement)

    @field_validator("tags")
    @classmethod
    def _are_names(cls, tags: dict[str, str]) -> dict[str, str]:
        for name, value in tags.items():
            if not name or name.startswith("_") or name == "time":
                raise ValueError(f"`{name}` cannot be a tag: InfluxDB keeps it for itself")
            check_name(value)
        return tags

    @model_validator(mode="after")
    def _is_one_version(self) -> Self:
        if bool(self.bucket) == bool(self.database):
            raise ValueError("name a `bucket` (version 2 and 3), or a `database` (version 1)")
        if self.bucket and (self.user or self.password or self.retention_policy):
            raise ValueError("`user`, `password` and `retention_policy` are those of a `database`")
        if self.database and (self.org or self.token):
            raise ValueError("`org` and `token` are those of a `bucket`")
        return self


class InfluxdbSink:
    """See `transport.Transport`. One request a batch; a refused one is halved."""

    name: ClassVar[str] = "influxdb"
    Config: ClassVar[type[BaseModel]] = InfluxdbConfig

    def __init__(self, config: InfluxdbConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._measurement = Name(config.measurement, str)
        self._tags = [
            (_escaped(name, _NAME), Name(value, str)) for name, value in sorted(config.tags.items())
        ]
        self.deliveries_max = config.batch
        self.concurrency = config.concurrency
        self.retry = config.retry
        self._url, self._headers, self._secrets = _address(config)
        self._caller = Caller(timeout_s=config.timeout, settings=context.settings, tls=config.tls)

    async def open(self) -> None:
        """Make the connection pool. RetryableError: a certificate cannot be used."""
        await self._caller.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Write all points in one request; where some are refused, in halves."""
        await self.open()
        lines, results = make_all(batch, self._line)
        return merge(results, await write_halving(lines, self._write))

    def _line(self, delivery: Delivery) -> bytes:
        whole = whole_message(delivery)
        body = whole["telemetry"] if whole is not None else delivery.body
        body = body if type(body) is dict else {"value": body}
        fields = [f"{name}={text}" for name, text in _fields(body, integers=self._config.integers)]
        if not fields:
            raise MessageError("it has no field that InfluxDB could take", code="no_fields")
        if len(fields) > FIELDS_MAX:
            raise MessageError(f"it has more than {FIELDS_MAX} fields", code="fields")
        series = [_measurement(self._measurement(delivery))]
        for name, template in self._tags:
            value = _tag(template, delivery)
            if value:
                series.append(f"{name}={value}")
        line = f"{','.join(series)} {','.join(fields)} {time_ms(delivery)}".encode(errors="replace")
        if len(line) > self._config.bytes_max:
            raise too_large(len(line), self._config.bytes_max)
        return line

    async def _write(self, lines: Sequence[bytes]) -> None:
        """MessageError: a point is refused. What InfluxDB took of such a request it takes again."""
        call = Call(url=self._url, body=b"\n".join(lines), headers=self._headers)
        try:
            answer = await self._caller.call(call)
        except RetryableError as error:
            raise _raised(unanswered(error)) from None
        result = judge(
            answer,
            now_ms=self._context.now_ms(),
            pause_s_max=self._context.settings.retry_after_s_max,
            secrets=self._secrets,
        )
        if result.verdict is Verdict.DELIVERED:
            return
        if answer.status in _OF_MESSAGE:
            response = str(result.detail.get("response", ""))[:300]
            raise MessageError(
                f"InfluxDB refuses the point: {response}", code="point", status=answer.status
            )
        raise _raised(result)


def _raised(result: Result) -> RetryableError:
    """Return a verdict as the error of all: a wrong token or bucket is no message's fault."""
    response = str(result.detail.get("response", ""))[:300]
    said = f"{result.message}: {response}" if response else result.message
    return RetryableError(said, retry_after_s=result.pause_s, code=result.reason or "influxdb")


def _address(config: InfluxdbConfig) -> tuple[str, dict[str, str], list[str]]:
    """Return where to write, with which headers, and the secrets among those."""
    headers = {"content-type": "text/plain; charset=utf-8", "user-agent": USER_AGENT}
    if config.bucket:
        query = {"bucket": config.bucket, "org": config.org, "precision": "ms"}
        url = f"{config.url}/api/v2/write?{urlencode({k: v for k, v in query.items() if v})}"
        if config.token is None:
            return url, headers, []
        token = config.token.get_secret_value()
        return url, headers | {"authorization": f"Token {token}"}, [token]
    query = {"db": config.database, "rp": config.retention_policy, "precision": "ms"}
    url = f"{config.url}/write?{urlencode({k: v for k, v in query.items() if v})}"
    if not config.user:
        return url, headers, []
    password = config.password.get_secret_value() if config.password else ""
    basic = b64encode(f"{config.user}:{password}".encode()).decode()
    return url, headers | {"authorization": f"Basic {basic}"}, [password, basic]


def _fields(body: dict[str, Any], *, integers: bool) -> Iterator[tuple[str, str]]:
    """Yield name and value of each field, sorted as they come; lists are fields by their place."""
    stack: list[tuple[str, Any, int]] = [(name, value, 1) for name, value in reversed(body.items())]
    while stack:
        name, value, depth = stack.pop()
        if type(value) in (dict, list):
            if depth >= DEPTH_MAX:
                raise MessageError(f"it is nested more than {DEPTH_MAX} deep", code="too_deep")
            inner = value.items() if type(value) is dict else enumerate(value)
            found = [(f"{name}.{key}", one, depth + 1) for key, one in inner]
            stack += reversed(found)
            continue
        text = _field(value, integers=integers)
        if text and name:
            yield _escaped(name, _NAME), text


def _field(value: Any, *, integers: bool) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int:
        if integers and -_INTEGER_MAX <= value < _INTEGER_MAX:
            return f"{value}i"
        return _field(_float(value), integers=False)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else ""
    if type(value) is str:
        if len(value.encode(errors="replace")) > STRING_BYTES_MAX:
            raise MessageError(f"a text has more than {STRING_BYTES_MAX} bytes", code="too_large")
        return f'"{value.translate(_TEXT)}"'
    return ""  # null: there is no such value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise MessageError("a number is too large for InfluxDB", code="number") from None


def _tag(template: Name, delivery: Delivery) -> str:
    try:
        return _escaped(template(delivery), _NAME)
    except MessageError:
        return ""  # what this message does not have


def _measurement(name: str) -> str:
    made = _escaped(name, _MEASUREMENT)
    return f"\\{made}" if made.startswith("#") else made  # a line with `#` is a comment


def _escaped(name: str, table: dict[int, str]) -> str:
    """Return a name escaped; without backslashes at its end, which would escape what follows."""
    return name.translate(table).rstrip("\\")


TRANSPORT = InfluxdbSink
