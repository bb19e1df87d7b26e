"""One HTTP request out: a `Call` goes in, an `Answer` or a clear error comes out, then a verdict.

Bounded in all directions: where it goes, time in total, the answer's size, no redirects, no proxy
of the environment, TLS verified. URLs and headers hold secrets, so no error or log line shows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline import __version__
from pipeline.errors import RetryableError
from pipeline.model.http import Call
from pipeline.rulebook.connections.tls import TlsConfig, tls_context
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import DELIVERED, Result, Verdict

if TYPE_CHECKING:
    from pipeline.sink.http_client.exchange import Exchange

USER_AGENT = f"funicular/{__version__}"
RESPONSE_SHOWN_BYTES = 1_024  # how much of it a dead letter shows
EPOCH_FROM = 1_000_000_000  # A reset past this is a date in epoch seconds (GitHub's way).
SECRET_LENGTH_MIN = 6  # Shorter values would blot out ordinary words.
_decode_body = msgspec.json.Decoder().decode
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
        self._exchange: Exchange | None = None

    async def open(self) -> None:
        """Read the certificates; connects to nothing yet. RetryableError: they cannot be used."""
        if self._exchange is None:
            # Its library takes a quarter of the start of commands that make no request.
            from pipeline.sink.http_client.exchange import Exchange  # noqa: PLC0415

            context = None if self._tls is None else tls_context(self._tls)
            self._exchange = Exchange(self._settings, context, self._timeout_s)

    async def close(self) -> None:
        """Close all connections; a call under way ends."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    async def call(self, call: Call) -> Answer:
        """Make the request and return the answer, whatever its status; opens where it must.

        The body is read up to the limit and within the time; what is missing of it changes no
        verdict, since the status has come. UnansweredError: no status came; its code is
        `address_denied` where it would have gone to an address that is not allowed.
        MessageError(`bad_request`): the request cannot be made at all. The caller bounds how many
        are under way.
        """
        await self.open()
        assert self._exchange is not None
        return await self._exchange.call(call)


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
