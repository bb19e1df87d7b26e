"""A Funicular that only takes notes, for the simulated servers to talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pipeline.demo.callbacks import Callbacks
from pipeline.integrations.dialect import dialects
from pipeline.model.http import Request
from pipeline.model.uplink import Uplink


class Receiver:
    """Takes requests; answers with `answers`, one after the other, and 202 past their end."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.paths: list[str] = []
        self.answers: list[tuple[int, Any]] = []
        self.url = ""
        self.came = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.path == "/readyz":
            return web.Response()
        self.paths.append(request.path)
        self.requests.append(Request(body=await request.read(), headers=headers))
        self.came.set()
        status, body = self.answers.pop(0) if self.answers else (202, None)
        return web.Response(status=status) if body is None else web.json_response(body)

    def read(self, dialect: str) -> list[Uplink]:
        """Return what Funicular's own dialect reads in the requests."""
        found = dialects()[dialect]
        return [
            uplink
            for request in self.requests
            for uplink in found.read(request, found.options(), found.device_template)
        ]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    async with listening(app) as url:
        receiver.url = url
        yield receiver


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def callbacks(receiver: Receiver, session: aiohttp.ClientSession) -> Callbacks:
    headers = {"content-type": "application/json"}
    return Callbacks(session, headers, 5.0, f"{receiver.url}/in/demo/x")


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Any], Any]]:
    """Gives a function that starts an HTTP server for a simulated one, and returns its URL."""
    open_servers: list[listening] = []

    async def start(server: Any) -> str:
        app = web.Application()
        server.serve(app)
        opened = listening(app)
        open_servers.append(opened)
        return await opened.__aenter__()

    yield start
    for opened in open_servers:
        await opened.__aexit__()


class listening:  # noqa: N801 - used like a function
    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
