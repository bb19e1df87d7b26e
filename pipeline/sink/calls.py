"""One HTTP request out: a `Call` goes in, an `Answer` or a clear error comes out, then a verdict.

Bounded in all directions: time in total, the answer's size, no redirects, no proxy of the
environment, TLS verified. URLs and headers hold secrets, so no error or log line shows them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from base64 import b64encode
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx
import msgspec

from pipeline import __version__
from pipeline.errors import MessageError, RetryableError
from pipeline.model.http import Call
from pipeline.sink.transport import DELIVERED, Result, Verdict

USER_AGENT = f"funicular/{__version__}"
RESPONSE_BYTES_MAX = 64 << 10  # more is not read; the connection is closed
RESPONSE_SHOWN_BYTES = 1_024  # how much of it a dead letter shows
KEEP_ALIVE_S = 4.0  # Below the 5 s of common servers (uvicorn, Node.js), which would close first.
EPOCH_FROM = 1_000_000_000  # A reset past this is a date in epoch seconds (GitHub's way).
SECRET_LENGTH_MIN = 6  # Shorter values would blot out ordinary words.
_decode_body = msgspec.json.Decoder().decode
_DEFAULTS = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
TIMED_OUT = 408
TOO_MANY = 429

# httpcore logs every address and header at DEBUG, and they hold keys.
logging.getLogger("httpcore").setLevel(logging.WARNING)


@cache
def _tls() -> ssl.SSLContext:
    """Return the one context of all pools: reading the certificates takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


class UnansweredError(RetryableError):
    """The request got no answer. `uncertain`: it may have been taken all the same."""

    code = "unanswered"

    def __init__(self, message: str, *, code: str, uncertain: bool) -> None:
        super().__init__(message, code=code)
        self.uncertain = uncertain


class Answer(msgspec.Struct, frozen=True):
    """What came back. Header names are lower case; `body` is at most `RESPONSE_BYTES_MAX` long."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""
    warnings: tuple[str, ...] = ()


class Caller:
    """The connections of one destination; HTTP/1.1 with keep-alive.

    It stands on httpx's transport, not on its client: the client would add cookies, redirects and
    a log line with the address to each request. And each call under way has a transport of its
    own, with one connection, the last used first: a shared pool looks at all connections several
    times a request. Measured with 8 calls under way, CPU of a request with its loopback server's
    part: client 620 us, shared transport 460 us, this 360 us; 400 us more where the package
    `sniffio` is missing, which httpcore tries to import at each step.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def open(self) -> None:
        """Read the certificates; connects to nothing yet."""
        _tls()

    async def close(self) -> None:
        """Close all connections; a call under way ends."""
        connections, self._all, self._idle = self._all, [], []
        for connection in connections:
            await connection.aclose()

    def _connection(self) -> httpx.AsyncHTTPTransport:
        if self._idle:
            return self._idle.pop()
        limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S
        )
        connection = httpx.AsyncHTTPTransport(verify=_tls(), limits=limits)
        self._all.append(connection)
        return connection

    async def call(self, call: Call) -> Answer:
        """Make the request and return the answer, whatever its status.

        The body is read up to the limit and within the time; what is missing of it changes no
        verdict, since the status has come. UnansweredError: no status came.
        MessageError(`bad_request`): the request cannot be made at all. The caller bounds how many
        are under way.
        """
        request = _request(call)
        connection = self._connection()
        try:
            return await self._call(connection, request)
        finally:
            if connection in self._all:
                self._idle.append(connection)

    async def _call(self, connection: httpx.AsyncHTTPTransport, request: httpx.Request) -> Answer:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await connection.handle_async_request(request)
        except (TimeoutError, httpx.TimeoutException):
            message = f"no answer within {self._timeout_s:g} s"
            raise UnansweredError(message, code="timeout", uncertain=True) from None
        except httpx.ConnectError as error:
            message = f"cannot connect: {error}"
            raise UnansweredError(message, code="connect", uncertain=False) from None
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, ValueError, OverflowError):
            # Their texts may show the header or the address, hence no `from` and no text.
            raise _bad_request("its address or a header is not valid in HTTP") from None
        except httpx.TransportError as error:
            message = f"the connection broke before an answer ({type(error).__name__})"
            raise UnansweredError(message, code="connection", uncertain=True) from None
        try:
            body = await _read(response, deadline)
        finally:
            await response.aclose()
        return Answer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            warnings=tuple(response.headers.get_list("x-warning")),
        )


def _request(call: Call) -> httpx.Request:
    try:
        headers = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in (_DEFAULTS | call.headers).items()
        ]
    except UnicodeEncodeError:
        raise _bad_request("a header has characters that HTTP cannot carry") from None
    try:
        url = httpx.URL(call.url)
        if url.userinfo:
            headers.append((b"authorization", b"Basic " + b64encode(_userinfo(url))))
        if not url.host:
            raise _bad_request("its address names no host")
        return httpx.Request(call.method, url, headers=headers, content=call.body)
    except (httpx.InvalidURL, ValueError):
        raise _bad_request("its address is not a URL") from None


def _userinfo(url: httpx.URL) -> bytes:
    return f"{url.username}:{url.password}".encode()


def _bad_request(why: str) -> MessageError:
    return MessageError(f"the request cannot be made: {why}", code="bad_request")


async def _read(response: httpx.Response, deadline: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for chunk in response.stream:
                body += chunk
                if len(body) >= RESPONSE_BYTES_MAX:
                    break
    except (TimeoutError, httpx.TransportError):
        pass  # The status counts; what there is of the body is shown.
    return bytes(body[:RESPONSE_BYTES_MAX])


def judge(
    answer: Answer, *, now_ms: int, pause_s_max: float, secrets: Iterable[str] = ()
) -> Result:
    """Return the verdict that an answer's status and headers give.

    2xx: delivered. 408, 429, 5xx and 3xx: the destination's fault. Any other: the message's.
    `secrets` are blotted out of what `detail` shows of the answer's body.
    """
    status = answer.status
    throttled = status in {TIMED_OUT, TOO_MANY} or status >= 500
    pause_s = _pause_s(answer.headers, now_ms, throttled=throttled)
    if pause_s is not None:
        pause_s = min(pause_s, pause_s_max)
    if 200 <= status < 300:
        return DELIVERED if pause_s is None else Result(Verdict.DELIVERED, pause_s=pause_s)
    detail = {"status": status, "response": blot(_shown(answer.body), secrets)}
    if status < 400:
        message = f"the destination answered {status}; redirects are not followed: mend its url"
        return Result(Verdict.POSTPONED, "redirect", message, detail)
    message = f"the destination answered {status}"
    if throttled:
        uncertain = status != TOO_MANY
        return Result(Verdict.POSTPONED, "status", message, detail, pause_s, uncertain)
    return Result(Verdict.REFUSED, "rejected", message, detail, pause_s)


def answered(answer: Answer) -> dict[str, Any]:
    """Return what a chain gets that waits for the answer: its `status`, and its `body` as JSON, or
    as text where it is none. Of a body longer than `RESPONSE_BYTES_MAX` only the beginning is read.
    """
    body: Any = None
    if answer.body:
        try:
            body = _decode_body(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = answer.body.decode(errors="replace")
    return {"status": answer.status, "body": body}


def unanswered(error: RetryableError) -> Result:
    """Return the verdict of a request that got no answer."""
    return Result(
        Verdict.POSTPONED,
        error.code,
        error.message,
        pause_s=error.retry_after_s,
        uncertain=getattr(error, "uncertain", True),
    )


def _shown(body: bytes) -> str:
    return body[:RESPONSE_SHOWN_BYTES].decode(errors="replace")


def blot(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the secrets, where a destination sent them back."""
    for secret in secrets:
        if len(secret) >= SECRET_LENGTH_MIN:
            text = text.replace(secret, "…")
    return text


# The families of rate-limit headers: how many are left, when one more may go, when all are back.
# The Things Stack's code sends the first, its documentation names the second; the third is the
# IETF draft's newer spelling.
_FAMILIES = (
    ("x-rate-limit-available", "x-rate-limit-retry", "x-rate-limit-reset"),
    ("x-ratelimit-remaining", "", "x-ratelimit-reset"),
    ("ratelimit-remaining", "", "ratelimit-reset"),
)


def _pause_s(headers: dict[str, str], now_ms: int, *, throttled: bool) -> float | None:
    if throttled and (asked := _retry_after_s(headers.get("retry-after", ""), now_ms)) is not None:
        return asked
    for left, retry, reset in _FAMILIES:
        if not throttled and _number(headers.get(left, "")) != 0:
            continue
        for name in (retry, reset):
            wait_s = _number(headers.get(name, ""))
            if wait_s is not None and wait_s > EPOCH_FROM:
                wait_s -= now_ms / 1_000
            if wait_s is not None and wait_s > 0:
                return wait_s
    return None


def _retry_after_s(value: str, now_ms: int) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3): seconds or a date."""
    wait_s = _number(value)
    if wait_s is None and value:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - now_ms / 1_000
        except (ValueError, OverflowError):
            return None
    return None if wait_s is None else max(wait_s, 0.0)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
