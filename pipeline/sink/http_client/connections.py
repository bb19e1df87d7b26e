"""The connections of one destination, on aiohttp: a session that holds to what Funicular promises.

In: where it may go, and whom it trusts. Out: a session; and what its `request` is called with for
a `Call`. Nothing here waits for a network.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.errors import MessageError
from pipeline.model.http import Call
from pipeline.sink.addresses import Outward

KEEP_ALIVE_S = 4.0  # Below the 5 s of common servers (uvicorn, Node.js), which would close first.
READ_BUFFER_BYTES = 64 << 10  # Of an answer; then its socket is not read until we took it.
HEAD_BYTES_MAX = 16 << 10  # One line or field of an answer's head; it has 128 fields at most.
BODY_WHOLE_BYTES_MAX = 1 << 20  # A larger body is written in pieces, others going on in between.

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name: RFC 9110, 5.6.2
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_NO_TIMERS = aiohttp.ClientTimeout()  # Each call has one deadline of its own.


@cache
def public_tls() -> ssl.SSLContext:
    """Return the one context of all that trust the public authorities: it takes 20 ms to make."""
    return httpx.create_ssl_context(trust_env=False)


class Resolver(AbstractResolver):
    """Looks names up in a thread of its own: those of the loop are four for all, and one name
    whose server is silent holds each for half a minute.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all addresses of a name. OSError: it has none."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink-names")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """End the thread, once it has its answer."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)


def _look_up(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )


def connections(outward: Outward, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    """Return a session without redirects, cookies, proxies, decompression or timers of its own.

    Each connection is made to an address that `outward` was asked about, and to no other.
    """
    connector = aiohttp.TCPConnector(
        limit=0,  # The destination's concurrency is the limit.
        ssl=tls or public_tls(),
        keepalive_timeout=KEEP_ALIVE_S,
        resolver=Resolver(),
        socket_factory=outward.socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_NO_TIMERS,
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("content-type",),
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
    )


def request_of(call: Call, defaults: dict[str, str]) -> dict[str, Any]:
    """Return what `ClientSession.request` is called with. MessageError (`bad_request`): HTTP cannot
    carry it; the text shows neither address nor header.
    """
    headers = {**defaults, **call.headers}
    if not all(map(_is_token, headers)):
        raise _bad("a header's name is none")
    if not all(map(str.isascii, headers.values())):
        try:
            "".join(headers.values()).encode("latin-1")
        except UnicodeEncodeError:
            raise _bad("a header has characters that HTTP cannot carry") from None
    url, authorization = _address(call.url)
    if authorization:
        headers.setdefault("authorization", authorization)
    body = call.body
    return {
        "method": call.method,
        "url": url,
        "headers": headers,
        "data": BytesIO(body) if len(body) > BODY_WHOLE_BYTES_MAX else body,
        "allow_redirects": False,
    }


@lru_cache(maxsize=1_024)
def _is_token(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None


def _address(url: str) -> tuple[URL, str]:
    """Return an address as it was written, save for what HTTP cannot carry and user and password;
    and these as basic authentication.
    """
    try:
        parts = urlsplit(url)
        origin, authorization = _origin(parts.scheme, parts.netloc)
    except ValueError:
        raise _bad("its address is not a URL") from None
    rest = parts.path or "/"
    if parts.query:
        rest = f"{rest}?{parts.query}"
    if _UNSAFE.search(rest):
        rest = quote(rest, safe=_ASCII)
    # `encoded`: yarl would turn `%2E%2E` into `..`, which a server takes for another address.
    return URL(f"{origin}{rest}", encoded=True), authorization


@lru_cache(maxsize=1_024)
def _origin(scheme: str, place: str) -> tuple[str, str]:
    """Return scheme, host and port as HTTP has them, and the authorization. ValueError: no URL."""
    who, _, where = place.rpartition("@")
    origin = URL(f"{scheme}://{where}")
    if scheme not in {"http", "https"} or not origin.host:
        raise ValueError
    return str(origin.origin()), _basic(who) if who else ""


def _basic(who: str) -> str:
    return f"Basic {b64encode(unquote(who).encode()).decode()}"


def _bad(why: str) -> MessageError:
    return MessageError(f"the request cannot be made: {why}", code="bad_request")
