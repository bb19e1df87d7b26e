"""Requests whose answer somebody waits for: a `Call` goes in, the answer comes out as it is.

For what the door asks of network servers; the same connections, limits and silence about secrets
as deliveries have (`calls.py`).
"""

from __future__ import annotations

from pipeline.model.http import Call, Response
from pipeline.sink.calls import Caller
from pipeline.sink.settings import SinkSettings

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
