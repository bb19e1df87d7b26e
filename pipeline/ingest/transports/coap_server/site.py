"""What a CoAP server of ours answers to each request: see `coap.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiocoap
from aiocoap import Code, Message, error
from aiocoap.blockwise import Block1Spool, Block2Cache
from aiocoap.numbers import ContentFormat
from aiocoap.pipe import Pipe

from pipeline.errors import MessageError
from pipeline.ingest.door import Answer
from pipeline.ingest.source import Context, Inlet
from pipeline.ingest.windows import Leaving
from pipeline.model.http import Request
from pipeline.rulebook.connections.coap_server import CoapServerConfig
from pipeline.rulebook.connections.listener import DEVICE, Networks

from .answer import content_format, response_of

DOWNLINKS = "downlinks"
NOTIFICATION_BYTES_MAX = 1_024  # what a datagram of CoAP holds; more would come in blocks
OUTBOX_MAX = 100
"""Downlinks that wait for one device's observation: there is one at a time, unless an engine
writes them twice."""
TOKEN = "token"  # noqa: S105 - the parameter's name
LOOK_S = 0.02


class _RefusedError(error.RenderableError):  # type: ignore[misc]  # the library has no types
    """A request that is answered with an error."""

    def __init__(self, code: Code, said: str) -> None:
        super().__init__()
        self.code = code
        self.said = said

    def to_message(self) -> Message:
        """Return the answer: the payload is a text for people (RFC 7252, 5.5.2)."""
        return Message(code=self.code, payload=self.said.encode())


class _Asked(NamedTuple):
    """A request's path and query, read."""

    device: str
    query: dict[str, str]
    downlinks: bool


class CoapSite:
    """The one resource of a server; it has all paths."""

    def __init__(
        self, config: CoapServerConfig, context: Context, inlet: Inlet, networks: Networks
    ) -> None:
        self._config = config
        self._integration = context.integration
        self._inlet = inlet
        self._networks = networks
        path = config.path or context.integration.name
        self._path = tuple(path.split("/"))
        self._block1 = Block1Spool()
        self._block2 = Block2Cache()
        self._observers = 0
        self._server: Any = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(self, server: aiocoap.Context) -> None:
        """Answer until cancelled; a bug of ours ends it."""
        self._server = server
        await self._ended

    def close(self) -> None:
        """Nothing is answered any more."""
        self._ended.cancel()

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer one request: the library's way in. It is cancelled when nobody waits any more."""
        try:
            await self._answer(pipe)
        except error.RenderableError as refused:
            pipe.add_response(_with_no_response(refused.to_message(), pipe.request), is_last=True)
        except Exception as bug:
            if not self._ended.done():
                self._ended.set_exception(bug)
            raise

    async def _answer(self, pipe: Pipe) -> None:
        request = pipe.request
        if not self._networks.admit(_address(request)):
            self._inlet.pass_over(1, "requests of none of the networks under `peers`")
            raise _RefusedError(Code.FORBIDDEN, "")
        asked = self._asked(request)
        if asked.downlinks:
            await self._downlinks(pipe, asked)
        elif request.code in (Code.POST, Code.PUT):
            await self._post(pipe, asked)
        else:
            raise _RefusedError(Code.METHOD_NOT_ALLOWED, "POST a message here")

    def _asked(self, request: Message) -> _Asked:
        """Return what a request asks for. 4.04, 4.01: it is none of this integration's, or does
        not show its token.
        """
        try:
            path = tuple(request.opt.uri_path)
            query = dict(_parameters(request.opt.uri_query))
        except UnicodeDecodeError:
            raise _RefusedError(Code.BAD_REQUEST, "the path is no text") from None
        length = len(self._path)
        rest = list(path[length:])
        downlinks = rest[-1:] == [DOWNLINKS]
        if downlinks:
            rest.pop()
        if path[:length] != self._path or len(rest) > 2:
            self._inlet.pass_over(1, "requests for other paths")
            raise _RefusedError(Code.NOT_FOUND, "")
        device, token = [*rest, "", ""][:2]
        device = device or query.pop(DEVICE, "")
        token = token or query.pop(TOKEN, "")
        query.pop(TOKEN, None)
        if not self._config.proven(device, token):
            self._inlet.pass_over(1, "requests with a wrong token, or without one")
            raise _RefusedError(Code.UNAUTHORIZED, "")
        return _Asked(device, query, downlinks)

    async def _post(self, pipe: Pipe, asked: _Asked) -> None:
        self._check_size(pipe.request)
        whole = self._block1.feed_and_take(pipe.request)
        taken: list[Answer] = []

        async def build() -> Message:
            answer = await self._inlet.ask(self._request(whole, asked))
            taken.append(answer)
            return response_of(answer.response)

        written = False
        try:
            response = await self._block2.extract_or_insert(whole, build)
            response.opt.block1 = whole.opt.block1
            pipe.add_response(_with_no_response(response, pipe.request), is_last=True)
            written = True
        finally:
            for answer in taken:
                if answer.handed_over is not None:
                    # The library repeats it as long as the device repeats its request.
                    answer.handed_over("answered" if written else "too_late")

    def _check_size(self, request: Message) -> None:
        limit = self._integration.body_bytes_max
        block = request.opt.block1
        begin = block.start if block is not None else 0
        if max(begin + len(request.payload), request.opt.size1 or 0) > limit:
            self._inlet.pass_over(1, "messages longer than `body_bytes_max`")
            raise _RefusedError(Code.REQUEST_ENTITY_TOO_LARGE, f"at most {limit} bytes")
        begins = block is not None and block.block_number == 0 and block.more
        # Of its spool the library tells no size; without a limit it would be anybody's.
        kept = len(self._block1._assemblies._items)  # noqa: SLF001
        if begins and kept >= self._config.transfers_max:
            self._inlet.pass_over(1, "messages in blocks past `transfers_max`")
            raise _RefusedError(Code.SERVICE_UNAVAILABLE, "too many messages come in blocks")

    def _request(self, whole: Message, asked: _Asked) -> Request:
        query = {**asked.query, "peer": whole.remote.hostinfo}
        if asked.device:
            query[DEVICE] = asked.device
        headers = {}
        if whole.opt.content_format is not None:
            found = ContentFormat(whole.opt.content_format)
            headers["content-type"] = getattr(found, "media_type", None) or ""
        return Request(
            body=whole.payload,
            method=str(whole.code),
            query=query,
            headers={name: value for name, value in headers.items() if value},
        )

    async def _downlinks(self, pipe: Pipe, asked: _Asked) -> None:
        request = pipe.request
        if request.code is not Code.GET:
            raise _RefusedError(Code.METHOD_NOT_ALLOWED, "GET the downlinks, with Observe")
        if not self._integration.stays_open:
            said = "this integration's downlinks go another way (`synchronous: false`)"
            raise _RefusedError(Code.METHOD_NOT_ALLOWED, said)
        if not asked.device:
            raise _RefusedError(Code.BAD_REQUEST, "name the device: …/{device}/downlinks")
        if request.opt.observe != 0:  # Asked once, or no longer: there is nothing to be read here.
            pipe.add_response(Message(code=Code.CONTENT), is_last=True)
            return
        if self._observers >= self._config.observers_max:
            self._inlet.pass_over(1, "observations past `observers_max`")
            raise _RefusedError(Code.SERVICE_UNAVAILABLE, "too many observe their downlinks")
        self._observers += 1
        try:
            await self._observe(pipe, asked.device)
        finally:
            self._observers -= 1

    async def _observe(self, pipe: Pipe, device: str) -> None:
        """Notify a device of its downlinks until it, or its time, has gone."""
        outbox: asyncio.Queue[Leaving] = asyncio.Queue(OUTBOX_MAX)

        def hand_over(leaving: Leaving) -> None:
            try:
                outbox.put_nowait(leaving)
            except asyncio.QueueFull:
                leaving.told("too_late")

        lifetime_s = self._config.observe_lifetime
        window = self._inlet.window(hand_over, lifetime_s)
        try:
            await self._inlet.announce(device, window.way_back())
            number = 0
            pipe.add_response(Message(code=Code.CONTENT, observe=number), is_last=False)
            async with asyncio.timeout(lifetime_s):
                while True:
                    leaving = await outbox.get()
                    number += 1
                    await self._notify(pipe, leaving, number)
        except MessageError as fault:
            raise _RefusedError(Code.BAD_REQUEST, fault.message) from None
        except TimeoutError:
            # Without Observe it is the last one: the device may ask again.
            pipe.add_response(Message(code=Code.CONTENT), is_last=True)
        finally:
            window.close()
            while not outbox.empty():
                outbox.get_nowait().told("too_late")

    async def _notify(self, pipe: Pipe, leaving: Leaving, number: int) -> None:
        if len(leaving.body) > NOTIFICATION_BYTES_MAX:
            said = f"it has {len(leaving.body)} bytes; a notification, {NOTIFICATION_BYTES_MAX}"
            leaving.told("refused", said)
            return
        notification = Message(
            code=Code.CONTENT,
            payload=leaving.body,
            content_format=content_format("application/json" if leaving.is_json else ""),
            observe=number,
            transport_tuning=aiocoap.Reliable(),
        )
        try:
            pipe.add_response(notification, is_last=False)
            async with asyncio.timeout(self._integration.answer_timeout_s):
                while self._unconfirmed(notification):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(LOOK_S)
            leaving.told("answered")
        finally:
            # Not confirmed in time, or the device has ended its observation: RST, or silence.
            leaving.told("not_answered")

    def _unconfirmed(self, message: Message) -> bool:
        """Return whether a device has not confirmed a message yet. The library keeps it until
        then, and tells nobody.
        """
        for interface in self._server.request_interfaces:
            manager = interface.token_interface
            waiting = manager._backlogs.get(message.remote, ())  # noqa: SLF001 - has no other way
            if (message.remote, message.mid) in manager._active_exchanges:  # noqa: SLF001
                return True
            if any(message is each for each, _ in waiting):
                return True
        return False


def _parameters(query: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for parameter in query:
        name, _, value = parameter.partition("=")
        yield name, value


def _address(request: Message) -> str:
    """Return the address without its port, which IPv6 has in brackets."""
    hostinfo: str = request.remote.hostinfo
    if hostinfo.startswith("["):
        return hostinfo[1:].partition("]")[0]
    return hostinfo.partition(":")[0]


def _with_no_response(response: Message, request: Message) -> Message:
    """Return an answer that is left out where the device wants none of its kind (RFC 7967)."""
    response.opt.no_response = request.opt.no_response
    return response
