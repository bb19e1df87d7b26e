"""A web API that keeps messages: aiohttp's server, asked at an interval."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, ClassVar

import orjson
from aiohttp import web

from pipeline.ingest.source import Outside
from pipeline.rulebook.book import Integration
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.asking import Fetcher
from pipeline.sink.settings import SinkSettings
from tests.contract.peers.peer import (
    BODY_BYTES,
    HOSTILE,
    NOT_UTF8,
    TRUNCATED,
    Peer,
    Peers,
    Place,
)
from tests.real.servers import free_port
from tests.real.source_work import Process, integration, until

ANSWER_BYTES_MAX = 10_000
FIRST = -1


class PollPeer(Peer):
    """Gives what is after a number; `strange` is what it answers instead, once or until changed."""

    acknowledges: ClassVar[str] = "the cursor that is kept with the messages"
    limits: ClassVar[dict[str, str]] = {
        "downlinks": "what is only asked cannot be told: downlinks go to the platform's own API, as"
        " the dialect posts them"
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._port = free_port()
        self._kept: list[dict[str, Any]] = []
        self._strange: web.Response | None = None
        self._slow = False
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        await self.mend()

    async def stop(self) -> None:
        await self.cut()

    def integration(self) -> Integration:
        return integration(
            "http", "poll", {"device_field": "device"},
            url=f"http://127.0.0.1:{self._port}/readings", interval=1, timeout=0.5,
            bytes_max=ANSWER_BYTES_MAX, query={"after": "${cursor}"}, items="body.readings",
            cursor="items[size(items) - 1].n",
        )  # fmt: skip

    def process(self) -> Process:
        fetching = partial(Fetcher, SinkSettings(allowed_networks=LOOPBACK))
        return Process(self.log, self.integration(), outside=Outside(self.leases, fetching))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._strange is not None:
            return self._strange
        if self._slow:
            dripping = web.StreamResponse(headers={"content-length": "1000"})
            await dripping.prepare(request)
            while self._slow:
                await dripping.write(b" ")
                await asyncio.sleep(0.05)
            return dripping
        after = int(request.query.get("after", str(FIRST)))
        return web.json_response({"readings": [each for each in self._kept if each["n"] > after]})

    async def send(self, *numbers: int) -> None:
        self._kept += [{"device": "d1", "n": number} for number in numbers]

    async def acknowledged(self) -> int:
        state = self.leases.cursors.get("acme/over-http") or {}
        cursor = state.get("cursor")
        return 0 if cursor is None else sum(each["n"] <= cursor for each in self._kept)

    async def cut(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def mend(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def garbage(self, kind: str, process: Process) -> int:
        errors = process.status().errors
        match kind:
            case "truncated":
                self._strange = web.Response(body=b'{"readings": [' + TRUNCATED)
            case "oversized":
                self._strange = web.Response(body=b"x" * BODY_BYTES)
            case "slow":
                self._slow = True
            case "wrong encoding":
                self._strange = web.Response(body=NOT_UTF8, headers={"content-encoding": "gzip"})
            case _:
                # What a message says of itself is the message's; an address elsewhere is refused.
                body = {"readings": [{"n": FIRST, "device": name, name: 1} for name in HOSTILE]}
                arrived = len(self.log.records)
                self._strange = web.Response(
                    body=orjson.dumps(body), headers={f"X-{len(HOSTILE)}": "y" * 4_000}
                )
                await until(lambda: len(self.log.records) >= arrived + len(HOSTILE))
                self._strange = None
                return len(HOSTILE)
        await until(lambda: process.status().errors > errors)
        self._strange, self._slow = None, False
        return 1


PEERS: Peers = {"poll": PollPeer}
