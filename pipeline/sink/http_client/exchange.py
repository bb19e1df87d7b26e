"""The connections of one destination, on aiohttp: a `Call` goes in, an `Answer` comes out.

Measured in this very use (`tests/bench/http_sink.py`, 8 calls under way, medians of alternating
runs), CPU of a request is 100 us; on httpx's bare transport it was 340 us.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from pipeline.errors import MessageError
from pipeline.model.http import Call
from pipeline.sink.calls import DENIED, USER_AGENT, Answer, UnansweredError
from pipeline.sink.http_client.connections import connections, request_of
from pipeline.sink.settings import SinkSettings

_DEFAULTS = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}


class Exchange:
    """A session with its limits; see `calls.Caller`."""

    def __init__(
        self, settings: SinkSettings, tls: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._session = connections(settings.outward, tls)

    async def close(self) -> None:
        """Close all connections; a call under way ends."""
        await self._session.close()

    async def call(self, call: Call) -> Answer:
        """Make the request and return the answer; errors are those of `calls.Caller.call`."""
        request = request_of(call, _DEFAULTS)
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
