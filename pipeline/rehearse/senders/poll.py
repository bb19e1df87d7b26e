"""A sample for an integration that asks: we play the platform, at the address that it asks.

In: an integration over `poll` whose `url` or `storage` is on this machine, and a sample. Out: an
answer that has it, once, and empty ones from then on. What an answer looks like is read from the
integration's own `items`, `cursor` and `next`, as far as they are plain paths.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from time import time_ns
from typing import Any
from urllib.parse import SplitResult, urlsplit

import orjson
from aiohttp import web

from pipeline.errors import MessageError
from pipeline.ingest.source import SourceError
from pipeline.ingest.transports.polled import plan_of
from pipeline.integrations.document import parse_object, rfc3339
from pipeline.model.http import Call, Request, Response
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.polled_api import PollConfig

WAIT_S = 75.0
"""Beyond the interval: a worker that found nobody here tries again at most a minute later."""
_PATH = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_OF_BODY = re.compile(rf"body(?:\.({_PATH}))?")
_OF_ITEM = re.compile(rf"items\[(?:size\(items\) ?- ?1|0)\]\.({_PATH})")
_SAYS_TIME = re.compile(r"time|date|_at$|since", re.IGNORECASE)


async def serve(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. It returns when the worker has asked again, which it does once the
    sample is on disk.
    """
    config: PollConfig = integration.connection
    address = _address(integration)
    nothing = b"" if config.storage else _around(config, None)
    platform = _Platform(address, _answer(integration, device_id, request), nothing)
    runner = web.ServerRunner(web.Server(platform.answer), shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address.hostname, address.port or 80).start()
        except OSError as error:
            said = f"nobody can listen at {address.netloc}: {error.strerror or error}"
            raise NotSentError(f"{said} (is a platform there already?)") from None
        await platform.asked_again(config.interval + config.timeout + WAIT_S)
    finally:
        await runner.cleanup()
    return f"given to whoever asked {address.netloc}{address.path}".encode()


class _Platform:
    """Gives an answer once, and then none."""

    def __init__(self, address: SplitResult, whole: bytes, nothing: bytes) -> None:
        self._path = address.path or "/"
        self._answers = [whole]
        self._nothing = nothing
        self._again = asyncio.Event()
        self._refused = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request of the worker's."""
        if request.path != self._path:
            self._refused = f"; somebody asked for {request.path[:200]}, which is not there"
            return web.Response(status=404)
        if not self._answers:
            self._again.set()
            return web.Response(body=self._nothing, content_type="application/json")
        return web.Response(body=self._answers.pop(), content_type="application/json")

    async def asked_again(self, within_s: float) -> None:
        """Return when the answer was given and another was asked for. NotSentError: not in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._again.wait()
        except TimeoutError:
            said = (
                "nobody asked" if self._answers else "the sample was given, and nobody asked again"
            )
            hint = "does a worker run with these rules, and may it ask this machine"
            allow = "(`--allow-network 127.0.0.0/8`)?"
            raise NotSentError(
                f"{said} within {within_s:.0f} s{self._refused}: {hint} {allow}"
            ) from None


def _address(integration: Integration) -> SplitResult:
    """Return the address that is asked. NotSentError: it is not ours to play."""
    config: PollConfig = integration.connection
    field, url = ("storage", config.storage) if config.storage else ("url", config.url)
    found = urlsplit(url)
    if found.scheme != "http" or not _is_loopback(found.hostname or ""):
        raise NotSentError(
            f"`{field}` asks {found.scheme}://{found.hostname}, which is the platform's: a sample"
            f' can be given at an address of this machine alone. Write `{field}: "${{env:API}}"`,'
            " and let API be http://127.0.0.1:9200/… here and for a worker to try it with"
        )
    if not config.storage:
        return found
    dialect: Any = integration.dialect
    now_ms = time_ns() // 1_000_000
    asked: Call = dialect.ask_stored(url.rstrip("/"), "", now_ms, now_ms, integration.options)
    return urlsplit(asked.url)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _answer(integration: Integration, device_id: str, request: Request) -> bytes:
    """Return an answer with the sample. NotSentError: none can be made up."""
    config: PollConfig = integration.connection
    try:
        sample = parse_object(request.body)
    except MessageError:
        raise NotSentError("a platform's answer is JSON, and this sample is none") from None
    if config.storage:
        name = integration.dialect.name
        if name not in _STORED:
            raise NotSentError(f"how the storage of {name} answers is not known here")
        return _STORED[name](sample)
    named = getattr(integration.options, "device_field", "")
    if named:
        _put(sample, named, device_id)
    _put_cursor(config, sample)
    body = _around(config, sample)
    try:
        read = plan_of(integration).read(Response(200, body), config.start, None)
    except SourceError as error:
        said = "an answer as `items`, `cursor` and `next` want it cannot be made up"
        raise NotSentError(f"{said}: {error.message}") from None
    if len(read.messages) != 1 or read.page is not None:
        raise NotSentError("an answer as `items` and `next` want it cannot be made up")
    return body


def _around(config: PollConfig, sample: Mapping[str, Any] | None) -> bytes:
    """Return the document that `items` finds the sample in; None: that it finds nothing in."""
    items = [] if sample is None else [sample]
    if config.lines:
        return b"".join(orjson.dumps(each) + b"\n" for each in items)
    path = _OF_BODY.fullmatch(config.items.strip())
    if path is None:
        raise NotSentError(f"`items: {config.items[:100]}` is more than a path, as body.readings")
    if path[1] is None:
        return orjson.dumps(items)
    document: dict[str, Any] = {}
    _put(document, path[1], items)
    following = _OF_BODY.fullmatch(config.next.strip())
    if following and following[1]:
        _put(document, following[1], None)
    reached = _OF_BODY.fullmatch(config.cursor.strip())
    if reached and reached[1]:
        _put(document, reached[1], _new_cursor(config, reached[1]))
    return orjson.dumps(document)


def _put_cursor(config: PollConfig, sample: dict[str, Any]) -> None:
    """Let an item have what `cursor` reads of it, newer than any before."""
    path = _OF_ITEM.fullmatch(config.cursor.strip())
    if path is not None:
        _put(sample, path[1], _new_cursor(config, path[1]))


def _new_cursor(config: PollConfig, path: str) -> Any:
    now_ms = time_ns() // 1_000_000
    as_time = isinstance(config.start, str) or (config.start is None and _SAYS_TIME.search(path))
    return rfc3339(now_ms) if as_time else now_ms


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for name in way:
        inside = document.get(name)
        document[name] = inside if isinstance(inside, dict) else {}
        document = document[name]
    document[last] = value


def _of_tts_v3(sample: dict[str, Any]) -> bytes:
    """Return what its storage streams: a message has no correlation ids there."""
    kept = {name: value for name, value in sample.items() if name != "correlation_ids"}
    return orjson.dumps({"result": kept}) + b"\n\n"


def _of_ttn_v2(sample: dict[str, Any]) -> bytes:
    """Return what its storage has of an uplink: device, bytes and time."""
    time = sample.get("metadata", {}).get("time")
    kept = {"device_id": sample["dev_id"], "raw": sample["payload_raw"], "time": time}
    return orjson.dumps([kept])


_STORED: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
    "tts_v3": _of_tts_v3,
    "ttn_v2": _of_ttn_v2,
}

SENDER = serve
