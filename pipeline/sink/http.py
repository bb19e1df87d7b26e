"""Transport `http`: each delivery's body as JSON to a web address.

In: `delivery.<tenant>.<sink>`. Out: requests; what the message itself is at fault for is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import ClassVar, Literal, Self
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.errors import MessageError, RetryableError
from pipeline.integrations.dialect import path_segment
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call
from pipeline.part import Part
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.batches import one_by_one
from pipeline.sink.calls import USER_AGENT, Caller, answered, judge, unanswered
from pipeline.sink.formats.cloudevents import BATCH, STRUCTURED, http_headers
from pipeline.sink.formats.format import PLAIN, Format
from pipeline.sink.naming import Name, check_name
from pipeline.sink.retry import RetryConfig, Seconds
from pipeline.sink.signing import Secrets, Signer
from pipeline.sink.transport import Context, Result, Verdict
from pipeline.sink.urls import WEB, parts_of

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name: RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # a header's value: RFC 9110, 5.5
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_ID_SAFE = "!#$%&'()*+,/:;=?@[]~"  # visible ASCII that may stand in a header as it is

_ABOUT_ALL = frozenset({401, 403, 404, 405, 407, 410})  # these blame no message in particular


class HttpConfig(Part):
    """A web address that takes JSON: `sinks/<name>.yaml`.

    ```yaml
    transport: http
    url: https://example.com/devices/{device}/messages   # filled in, encoded; also {tenant}
                                # {sink} {type} {integration} {device_type} {application_id}
                                # {device_id} {dev_eui}
    method: POST                # or PUT, PATCH
    headers:
      authorization: Bearer ${env:APPLICATION_KEY}
    timeout: 10s                # for one request, its answer included
    batch: 1                    # 1: one JSON object a request; more: an array of up to so many
    concurrency: 8              # requests in flight; never two with messages of one device
    retry: {first: 1s, factor: 2, max: 5m, jitter: 0.5}
    tls: {ca_file: ca.pem, certificate_file: own.pem, key_file: own.key}   # where they are needed
    format: plain               # or cloudevents, cloudevents_binary, ttn_v2, tts_v3, a template
    ```
    `sign: ${env:WEBHOOK_SECRET}` signs each request as Standard Webhooks says; the secret is
    `whsec_` and base64 of 24 to 64 random bytes, or `whsk_` and base64 of an ed25519 key, whose
    public part the receiver knows. While receivers change over: a list, and all sign.
    """

    url: str = Field(repr=False, max_length=8_192)
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    timeout: Seconds = Field(default=10.0, gt=0, le=600)
    batch: int = Field(default=1, ge=1, le=10_000)
    concurrency: int = Field(default=8, ge=1, le=256)
    retry: RetryConfig = Field(default_factory=RetryConfig)
    sign: Secrets = ()
    tls: TlsConfig | None = None
    format: Format = PLAIN

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, url: str) -> str:
        parts = parts_of(url, WEB, "write a full web address, as https://example.com/messages")
        if "{" in parts.netloc:
            raise ValueError("{device} may stand in the path or the query, not in the host")
        return check_name(url)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"`{name}` is not a header's name")
            if name.lower() in _OURS or name.lower().startswith("webhook-"):
                raise ValueError(f"the header `{name}` is set by Funicular itself")
            if not _VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of the header `{name}` has characters that HTTP lacks")
        return headers

    @model_validator(mode="after")
    def _is_one_address_a_request(self) -> Self:
        if self.batch > 1 and "{" in self.url:
            raise ValueError(
                "a url with {device} or the like takes one message a request: leave `batch` at 1"
            )
        if self.batch > 1 and self.format.alone:
            raise ValueError(
                f"the format {self.format.alone} says things about each message in headers, or is"
                " no JSON: leave `batch` at 1"
            )
        if self.tls is not None and not self.url.lower().startswith("https:"):
            raise ValueError("`tls` needs a url that begins with https://")
        return self


class HttpSink:
    """See `transport.Transport`. A refused array is halved until the refused message is alone."""

    name: ClassVar[str] = "http"
    Config: ClassVar[type[BaseModel]] = HttpConfig

    def __init__(self, config: HttpConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self.deliveries_max = config.batch
        self.concurrency = config.concurrency
        self.retry = config.retry
        self._caller = Caller(timeout_s=config.timeout, settings=context.settings, tls=config.tls)
        self._signer = Signer([secret.get_secret_value() for secret in config.sign])
        # Where each device has its own address, one that is gone says nothing of the others.
        self._url = Name(config.url, path_segment)
        self._gone_stops = self._url.fixed
        self._headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        self._shape = config.format.shape(context.tenant, context.destination)
        self._own_type = "content-type" in {name.lower() for name in config.headers}
        secrets = {name.lower(): v.get_secret_value() for name, v in config.headers.items()}
        self._headers |= secrets
        self._secrets = [
            part for value in secrets.values() for part in (value, *value.split()[-1:])
        ] + config.format.secrets

    async def open(self) -> None:
        """Read the certificates. RetryableError: they cannot be used."""
        await self._caller.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Send one request, or, where an array was refused, several in order; one each where a
        chain waits for an answer.
        """
        if len(batch) > 1 and any(delivery.awaited for delivery in batch):
            return await self._one_by_one(batch)
        result = await self._send(batch)
        about_all = result.detail.get("status") in _ABOUT_ALL
        if result.verdict is not Verdict.REFUSED or len(batch) == 1 or about_all:
            return [result] * len(batch)
        half = len(batch) // 2
        first = await self.deliver(batch[:half])
        for earlier in first:
            if earlier.verdict is Verdict.POSTPONED:
                return [*first, *[earlier] * (len(batch) - half)]
        return [*first, *await self.deliver(batch[half:])]

    async def _one_by_one(self, batch: Sequence[Delivery]) -> list[Result]:
        return await one_by_one(batch, self._alone)

    async def _alone(self, delivery: Delivery) -> Result:
        (result,) = await self.deliver([delivery])
        return result

    async def _send(self, batch: Sequence[Delivery]) -> Result:
        try:
            answer = await self._caller.call(self._call(batch))
        except RetryableError as error:
            return unanswered(error)
        except MessageError as error:
            return Result(Verdict.REFUSED, error.code, error.message, error.detail)
        result = judge(
            answer,
            now_ms=self._context.now_ms(),
            pause_s_max=self._context.settings.retry_after_s_max,
            secrets=self._secrets,
            gone_stops=self._gone_stops,
        )
        if batch[0].awaited and result.verdict is Verdict.DELIVERED:
            return msgspec.structs.replace(result, answer=answered(answer))
        return result

    def _call(self, batch: Sequence[Delivery]) -> Call:
        headers = self._headers
        if self._config.batch == 1:
            shaped = self._shape(batch[0])
            body = shaped.body
            headers = headers | http_headers(shaped.attributes) | shaped.headers
            content_type = shaped.content_type
            key = quote(batch[0].id, safe=_ID_SAFE)
            url = self._url(batch[0])
        else:
            made = [self._shape(delivery) for delivery in batch]
            body = b"[" + b",".join(one.body for one in made) + b"]"
            content_type = BATCH if made[0].content_type == STRUCTURED else made[0].content_type
            ids = "\n".join(delivery.id for delivery in batch)
            key = blake2b(ids.encode(), digest_size=16).hexdigest()
            url = self._config.url
        # Both names say the same: the IETF draft's, and Standard Webhooks'.
        headers = headers | {"idempotency-key": key, "webhook-id": key}
        if not self._own_type:
            headers["content-type"] = content_type
        if self._config.sign:
            headers |= self._signer.headers(key, self._context.now_ms() // 1_000, body)
        return Call(url=url, body=body, method=self._config.method, headers=headers)


TRANSPORT = HttpSink
