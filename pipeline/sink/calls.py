"""One HTTP request out: a `Call` goes in, an `Answer` or a clear error comes out, then a verdict.

Bounded in all directions: where it goes, time in total, the answer's size, no redirects, no proxy
of the environment, TLS verified. URLs and headers hold secrets, so no error or log line shows them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from pipeline import __version__
from pipeline.errors import MessageError, RetryableError
from pipeline.model.http import Call
from pipeline.rulebook.connections.tls import TlsConfig, tls_context
from pipeline.sink.connections import connections, request_of
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import DELIVERED, Result, Verdict

USER_AGENT = f"funicular/{__version__}"
RESPONSE_SHOWN_BYTES = 1_024  # how much of it a dead letter shows
EPOCH_FROM = 1_000_000_000  # A reset past this is a date in epoch seconds (GitHub's way).
SECRET_LENGTH_MIN = 6  # Shorter values would blot out ordinary words.
_decode_body = msgspec.json.Decoder().decode
_DEFAULTS = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
TIMED_OUT = 408
GONE = 410
TOO_MANY = 429
DENIED = "address_denied"


class UnansweredError(RetryableError):
    """The request got no answer. `uncertain`: it may have been taken all the same."""

    code = "unanswered"

    def __init__(self, message: str, *, code: str, uncertain: bool) -> None:
        super().__init__(message, code=code)
        self.uncertain = uncertain


class Answer(msgspec.Struct, frozen=True):
    """What came back. Header names are lower case; `body` is no longer than the limit, and `whole`
    says whether there was no more of it.
    """

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""
    warnings: tuple[str, ...] = ()
    whole: bool = True


class Caller:
    """The connections of one destination; HTTP/1.1 with keep-alive.

    `settings` say where it may connect to, by default to public addresses alone, and how much of
    an answer it reads. `tls` is for certificates of one's own; None: the public authorities.
    It stands on aiohttp: measured in this very use (`tests/bench/http_sink.py`, 8 calls under
    way, medians of alternating runs), CPU of a request is 100 us; on httpx's bare transport it was
    340 us.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        settings: SinkSettings | None = None,
        tls: TlsConfig | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._settings = settings or SinkSettings()
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Read the certificates; connects to nothing yet. RetryableError: they cannot be used."""
        if self._session is None:
            context = None if self._tls is None else tls_context(self._tls)
            self._session = connections(self._settings.outward, context)

    async def close(self) -> None:
        """Close all connections; a call under way ends."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, call: Call) -> Answer:
        """Make the request and return the answer, whatever its status; opens where it must.

        The body is read up to the limit and within the time; what is missing of it changes no
        verdict, since the status has come. UnansweredError: no status came; its code is
        `address_denied` where it would have gone to an address that is not allowed.
        MessageError(`bad_request`): the request cannot be made at all. The caller bounds how many
        are under way.
        """
        request = request_of(call, _DEFAULTS)
        await self.open()
        assert self._session is not None
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.request(**request)
        except TimeoutError:
            message = f"no answer within {self._timeout_s:g} s"
            raise UnansweredError(message, code="timeout", uncertain=True) from None
        except aiohttp.ClientConnectorDNSError as error:
            raise _unconnected(f"its name is not found: {error.os_error}") from None
        except aiohttp.ClientConnectorError as error:
            raise _not_connected(error) from None
        except (aiohttp.InvalidURL, ValueError, OverflowError):
            # Their texts may show the header or the address, hence no `from` and no text.
            message = "the request cannot be made: its address or a header is not valid in HTTP"
            raise MessageError(message, code="bad_request") from None
        except aiohttp.ClientError as error:
            message = f"the connection broke before an answer ({type(error).__name__})"
            raise UnansweredError(message, code="connection", uncertain=True) from None
        try:
            body, whole = await _read(response, deadline, self._settings.answer_bytes_max)
        finally:
            response.close()  # gives the connection back where all of the body was read
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
            warnings=tuple(response.headers.getall("x-warning", ())),
            whole=whole,
        )


def _not_connected(error: aiohttp.ClientConnectorError) -> UnansweredError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _unconnected(f"its certificate is not trusted: {error.certificate_error}")
    if isinstance(error.os_error, PermissionError):
        return UnansweredError(str(error.os_error), code=DENIED, uncertain=False)
    return _unconnected(str(error.os_error))


def _unconnected(why: str) -> UnansweredError:
    return UnansweredError(f"cannot connect: {why}", code="connect", uncertain=False)


async def _read(
    response: aiohttp.ClientResponse, deadline: float, bytes_max: int
) -> tuple[bytes, bool]:
    """Return the body, and whether it is all of it."""
    content = response.content
    if content.is_eof() and not content.total_bytes:
        return b"", True
    body = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in content.iter_any():
                body += chunk
                if len(body) > bytes_max:
                    return bytes(body[:bytes_max]), False
    except (TimeoutError, aiohttp.ClientError):
        return bytes(body), False  # The status counts; what there is of the body is shown.
    return bytes(body), True


def judge(
    answer: Answer,
    *,
    now_ms: int,
    pause_s_max: float,
    secrets: Iterable[str] = (),
    gone_stops: bool = False,
) -> Result:
    """Return the verdict that an answer's status and headers give.

    2xx: delivered. 408, 429, 5xx and 3xx: the destination's fault. Any other: the message's; with
    `gone_stops`, 410 (gone) is the destination's, and asks for no more requests at all.
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
    if status == GONE and gone_stops:
        return Result(Verdict.POSTPONED, "gone", message, detail, stop=True)
    return Result(Verdict.REFUSED, "rejected", message, detail, pause_s)


def answered(answer: Answer) -> dict[str, Any]:
    """Return what a chain gets that waits for the answer: its `status`, and its `body` as JSON, or
    as text where it is none. Of a body longer than the limit only the beginning is there.
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
