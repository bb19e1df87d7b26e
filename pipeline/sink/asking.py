"""Requests whose answer somebody waits for: a `Call` goes in, the answer comes out as it is.

For what the door asks of network servers, and sources of the APIs that they read; the same
connections, limits and silence about secrets as deliveries have (`calls.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import time_ns

from pipeline.errors import RetryableError
from pipeline.model.http import Call, Response
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.calls import Caller, judge
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Verdict

TIMEOUT_S = 4.0
"""Below the 5 s that a command's answer waits by default."""


class Asker:
    """Makes requests; `close` ends its connections."""

    def __init__(
        self, settings: SinkSettings | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._caller = Caller(timeout_s=timeout_s, settings=settings)

    async def __call__(self, call: Call) -> Response:
        """Return the answer, whatever its status. RetryableError: there was none. MessageError:
        the request cannot be made.
        """
        answer = await self._caller.call(call)
        return Response(answer.status, answer.body, answer.headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()


class Fetcher:
    """Asks for what is to be read whole: a 2xx answer, or a reason to ask again later."""

    def __init__(
        self,
        settings: SinkSettings,
        *,
        timeout_s: float,
        bytes_max: int,
        tls: TlsConfig | None,
    ) -> None:
        self._settings = replace(settings, answer_bytes_max=bytes_max)
        self._caller = Caller(timeout_s=timeout_s, settings=self._settings, tls=tls)

    async def __call__(self, call: Call) -> Response:
        """Return the answer. RetryableError: there is none, it is not 2xx (`retry_after_s` as it
        asks for), or its body is too long or ended too early; none of its text is shown, which
        may be anything. MessageError: the request cannot be made.
        """
        answer = await self._caller.call(call)
        now_ms = time_ns() // 1_000_000
        result = judge(answer, now_ms=now_ms, pause_s_max=self._settings.retry_after_s_max)
        if result.verdict is not Verdict.DELIVERED:
            raise RetryableError(
                result.message.replace("the destination", "the server"),
                retry_after_s=result.pause_s,
                code=f"status_{answer.status}",
            )
        if not answer.whole:
            limit = self._settings.answer_bytes_max
            said = (
                f"the answer is longer than {limit} bytes (`bytes_max`)"
                if len(answer.body) >= limit
                else "the answer's body did not come to its end"
            )
            raise RetryableError(said, code="answer")
        return Response(answer.status, answer.body, answer.headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()


def fetchers(settings: SinkSettings) -> Callable[..., Fetcher]:
    """Return what makes a Fetcher that may go where the operator allows it."""

    def made(*, timeout_s: float, bytes_max: int, tls: TlsConfig | None) -> Fetcher:
        return Fetcher(settings, timeout_s=timeout_s, bytes_max=bytes_max, tls=tls)

    return made
