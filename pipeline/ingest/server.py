"""The HTTP server: sockets and aiohttp on one side; Door, Api and plain values on the other.

aiohttp's low-level server, without its application, router and middlewares: a request costs 30 µs
less so. The only module here that knows aiohttp.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from pipeline.errors import UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.http import Response

from .access import Access
from .api import Api
from .applications import Applications
from .body import too_large, unpack
from .door import UNAUTHORIZED, Answer, Door, Gate, busy
from .integrations_api import IntegrationsApi
from .letters_api import Admitted as ForLetters
from .letters_api import LettersApi
from .problem import problem
from .reports import Outcome
from .settings import IngestSettings

SERVER = "funicular"
METHODS_IN = frozenset({"POST", "PUT", "GET"})
QUERY_FIELDS_MAX = 100
READ_BUFFER_BYTES = 64 * 1024
"""Of a connection, before its handler takes them; then the socket is not read."""

NOT_FOUND = problem(404, "not_found", "there is nothing at this address")
_BAD_QUERY = problem(400, "query", f"the query has more than {QUERY_FIELDS_MAX} fields")
_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_log = get_logger(__name__)


class Server:
    """Listens, and answers. `unready` gives what is missing before uplinks can be taken, or None.

    `start` and `stop` are called once each, in this order, on one event loop.
    """

    def __init__(  # noqa: PLR0917 - the parts of the room, named where it is put together
        self,
        door: Door,
        api: Api,
        applications: Applications,
        letters: LettersApi,
        access: Access,
        metrics: Registry,
        settings: IngestSettings,
        *,
        now_ms: Callable[[], int],
        unready: Callable[[], str | None],
        integrations: IntegrationsApi | None = None,
    ) -> None:
        self._door = door
        self._api = api
        self._applications = applications
        self._letters = letters
        self._access = access
        self._metrics = metrics
        self._settings = settings
        self._now_ms = now_ms
        self._unready = unready
        self._integrations = integrations
        self._bodies_bytes = 0
        self._listener: _Listener | None = None
        self._sockets: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. UsageError: the address cannot be listened on."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        self._listener = _Listener(self._handle, settings)
        try:
            self._sockets = await loop.create_server(
                self._listener, settings.host, settings.port, backlog=settings.backlog
            )
        except OSError as error:
            raise UsageError(_why_not_listening(error, settings)) from None
        self.port = self._sockets.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Take no new connections; those that are idle end."""
        if self._sockets is not None and self._listener is not None:
            self._sockets.close()
            self._listener.pre_shutdown()

    async def stop(self) -> None:
        """Wait until the requests under way are answered, at most `stop_timeout_s`; end all."""
        self.close()
        if self._listener is not None:
            await self._listener.shutdown(self._settings.stop_timeout_s)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if path.startswith("http"):
            # A proxy's form of the target; only its path is of use here.
            path = request.rel_url.raw_path
        if path.startswith("/in/"):
            return await self._in(request, path, query)
        if path.startswith("/api/v3/") or "/api/v2/down/" in path:
            answer = await self._application(request, path, query)
            if answer is not None:
                return _web(answer)
        if path.startswith("/api/"):
            return _web(await self._command(request, path, query))
        if request.method not in ("GET", "HEAD"):
            return _web(NOT_FOUND)
        if path == "/healthz":
            return _web(Response(200, b"alive\n", _TEXT))
        if path == "/readyz":
            unready = self._unready()
            status, said = (200, "ready") if unready is None else (503, unready)
            return _web(Response(status, f"{said}\n".encode(), _TEXT))
        if path == "/metrics":
            return _web(self._metrics_text(request))
        return _web(NOT_FOUND)

    async def _in(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        arrived_ms = self._now_ms()
        parts = path.split("/")
        if len(parts) != 4:
            return _web(NOT_FOUND)
        method = request.method
        if method not in METHODS_IN:
            allow = {"allow": "POST, PUT, GET"}
            return _web(problem(405, "method", "POST, PUT or GET, not this", headers=allow))
        fields = _fields(query)
        if isinstance(fields, Response):
            return _web(fields)
        headers = request.headers
        gate = self._door.enter(_unquote(parts[2]), _unquote(parts[3]), headers, fields)
        if gate is None:
            return self._done(None, UNAUTHORIZED)
        unready = self._unready()
        if unready is not None:
            return self._done(gate, busy(unready, self._settings))
        body = await self._body(request, gate.integration.body_bytes_max)
        if isinstance(body, Response):
            return self._done(gate, body)
        taken = gate.request(method, headers, fields, body)
        answer = await self._door.take(gate, taken, arrived_ms)
        if answer.handed_over is None:
            return self._done(gate, answer.response)
        return await self._hand_over(request, gate, answer)

    def _done(self, gate: Gate | None, response: Response) -> web.Response:
        self._door.count(gate, response.status)
        return _web(response)

    async def _hand_over(
        self, request: web.BaseRequest, gate: Gate, answer: Answer
    ) -> web.StreamResponse:
        """Write an answer that carries downlinks, and tell the door whether the client has it.

        «Has it» is: the operating system took every byte, and the connection was not reset. A
        client that closes as soon as it has read the answer has it.
        """
        assert answer.handed_over is not None
        response = self._done(gate, answer.response)
        await asyncio.sleep(0)  # A client that has gone is noticed now, before it is written to.
        # Where the client has gone before a byte was written, it surely has no downlink.
        outcome: Outcome = "too_late" if request.transport is None else "not_answered"
        try:
            async with asyncio.timeout(self._settings.answer_write_timeout_s):
                if await _write(request, response):
                    outcome = "answered"
        except (ConnectionError, TimeoutError) as error:
            _log.debug("an answer did not leave", error=type(error).__name__)
        finally:
            # Also when this task is cancelled by a stop: the downlink must not be lost.
            answer.handed_over(outcome)
        if outcome == "not_answered" and request.transport is not None:
            request.transport.abort()
        return response

    async def _command(self, request: web.BaseRequest, path: str, query: str) -> Response:
        asked = (request.method, path, request.headers, _peer(request))
        told = self._integrations.answer(*asked) if self._integrations is not None else None
        if told is not None:
            return told
        for_letters = self._letters.admit(*asked)
        admitted = self._api.admit(*asked) if for_letters is None else for_letters
        if isinstance(admitted, Response):
            return admitted
        fields = _fields(query)
        if isinstance(fields, Response):
            return fields
        unready = self._unready()
        if unready is not None:
            return busy(unready, self._settings)
        body = await self._body(request, self._settings.api_body_bytes_max)
        if isinstance(body, Response):
            return body
        if isinstance(admitted, ForLetters):
            return await self._letters.handle(admitted, fields, body)
        return await self._api.handle(admitted, fields, body)

    async def _application(
        self, request: web.BaseRequest, path: str, query: str
    ) -> Response | None:
        """Return the answer in the words of the application's system; None: not its address."""
        fields = _fields(query)
        if isinstance(fields, Response):
            return fields
        admitted = self._applications.admit(
            request.method, path, fields, request.headers, _peer(request)
        )
        if admitted is None or isinstance(admitted, Response):
            return admitted
        unready = self._unready()
        if unready is not None:
            return admitted.refused(busy(unready, self._settings))
        body = await self._body(request, self._settings.api_body_bytes_max)
        if isinstance(body, Response):
            return admitted.refused(body)
        return await self._applications.handle(admitted, body)

    def _metrics_text(self, request: web.BaseRequest) -> Response:
        who = self._access.check_metrics(request.headers, _peer(request))
        if isinstance(who, Response):
            return who
        self._door.flush(self._metrics)
        return Response(200, self._metrics.text().encode(), _TEXT)

    async def _body(self, request: web.BaseRequest, bytes_max: int) -> bytes | Response:
        """Return the whole body, unpacked; or the answer that refuses it (400, 408, 413, 415,
        503).
        """
        content = request.content
        if content.is_eof():
            # It came with the headers, as nearly all do.
            body = content.read_nowait()
            if len(body) > bytes_max:
                return too_large(bytes_max)
        else:
            read = await self._read(request, bytes_max)
            if isinstance(read, Response):
                return read
            body = read
        encoding = request.headers.get("content-encoding")
        return body if encoding is None else unpack(body, encoding, bytes_max)

    async def _read(self, request: web.BaseRequest, bytes_max: int) -> bytes | Response:
        if (request.content_length or 0) > bytes_max:
            return too_large(bytes_max)
        if request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while chunk := await request.content.readany():
                    body += chunk
                    self._bodies_bytes += len(chunk)
                    if len(body) > bytes_max:
                        return too_large(bytes_max)
                    if self._bodies_bytes > self._settings.bodies_bytes_max:
                        return busy("too many large requests at a time", self._settings)
        except TimeoutError:
            return problem(
                408,
                "body_timeout",
                f"the body was not complete after {self._settings.body_timeout_s:g} s",
                headers={"connection": "close"},
            )
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
            return problem(400, "body", "the body broke off", headers={"connection": "close"})
        finally:
            self._bodies_bytes -= len(body)
        return bytes(body)


class _Connection(web.RequestHandler):
    """A connection whose faults are answered in our words: JSON, no versions, no trace."""

    __slots__ = ("broken",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.broken = False
        """Ended by a fault (a reset), not by the client's own clean close."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note how the connection ended: by it the door tells whether an answer arrived."""
        self.broken = exc is not None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's shape; it may quote the request
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            response = problem(431, "headers_too_large", "the request line or a header is too long")
        elif isinstance(exc, HttpProcessingError):
            response = problem(400, "http", "this is not HTTP/1.1 as it should be")
        else:
            _log.error("a request failed by our fault", path=request.path[:200], exc_info=exc)
            response = problem(status, "internal", "this is a fault of Funicular, not of yours")
        if request.writer.output_size > 0:
            # Part of an answer is written; nothing that is added now would make sense.
            raise ConnectionError("the answer is already under way")
        answer = _web(response)
        answer.force_close()
        return answer


class _Listener(web.Server):
    """Makes a protocol for each connection, up to `connections_max`."""

    def __init__(self, handler: Any, settings: IngestSettings) -> None:
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # `body.unpack` does it, within the limit of memory.
            "keepalive_timeout": settings.keepalive_timeout_s,
            "lingering_time": settings.linger_s,
            "max_field_size": settings.header_bytes_max,
            "max_headers": settings.headers_max,
            "max_line_size": settings.header_bytes_max,
            "read_bufsize": READ_BUFFER_BYTES,
        }
        self._connections_max = settings.connections_max
        self._busy = busy("too many connections", settings)
        super().__init__(handler)

    def __call__(self) -> web.RequestHandler:
        if len(self._connections) >= self._connections_max:
            return cast("web.RequestHandler", _Refusal(self._busy))
        return _Connection(self, loop=self._loop, **self._options)


class _Refusal(asyncio.Protocol):
    """A connection too many: it is told so, and closed."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        out = cast("asyncio.Transport", transport)
        headers = {**self._response.headers, "connection": "close", "server": SERVER}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = len(self._response.body)
        start = f"HTTP/1.1 503 Service Unavailable\r\ncontent-length: {length}\r\n{head}\r\n"
        out.write(start.encode() + self._response.body)
        out.close()


async def _write(request: web.BaseRequest, response: web.Response) -> bool:
    """Return whether the operating system has taken the whole answer."""
    connection = cast("_Connection", request.protocol)
    transport = request.transport
    if transport is None:
        return False
    await response.prepare(request)
    await response.write_eof()
    # uvloop writes at the end of the loop's turn; a broken connection shows itself only then.
    await asyncio.sleep(0)
    if request.transport is not None and transport.get_write_buffer_size():
        transport.set_write_buffer_limits(high=0)
        await request.writer.drain()
        transport.set_write_buffer_limits()
    return not connection.broken


def _web(response: Response) -> web.Response:
    answer = web.Response(
        status=response.status,
        body=response.body or None,
        headers={**response.headers, "server": SERVER},
    )
    if response.status in (408, 413):
        answer.force_close()
    return answer


def _fields(query: str) -> dict[str, str] | Response:
    if not query:
        return {}
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX))
    except ValueError:
        return _BAD_QUERY


def _unquote(segment: str) -> str:
    return unquote(segment) if "%" in segment else segment


def _peer(request: web.BaseRequest) -> str:
    """Return the address at the other end; empty where it is gone, which is nowhere local."""
    return request.remote or ""


def _why_not_listening(error: OSError, settings: IngestSettings) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} is in use: end what listens on {where}, or choose another"
    if error.errno == errno.EACCES:
        return f"this user may not listen on {where}: choose a port above 1023"
    # Newer Pythons' own loop passes by an address that is none, and then says no number.
    if isinstance(error, socket.gaierror) or error.errno in {errno.EADDRNOTAVAIL, None}:
        return f"{settings.host!r} is no address of this machine"
    return f"cannot listen on {where}: {error.strerror or error}"
