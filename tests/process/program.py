"""The real program as a process, and the servers around it, for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import web


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Program:
    """`funicular run`, or a worker, as a process; ended for certain at the end of the `with`."""

    rules: Path
    data: Path
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("run",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; its log goes to a file beside the data."""
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "stderr.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", *self.command, "--rules", str(self.rules),
                 "--data", str(self.data), "--port", str(self.port), "--log-format", "json"],
                stderr=log,
                env={**os.environ, "FUNICULAR_ALLOW_NETWORKS": "loopback", **self.env},
                cwd=Path(__file__).parents[2],
            )  # fmt: skip

    async def ready(self, session: aiohttp.ClientSession, timeout_s: float = 60) -> None:
        """Wait until it takes messages."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            try:
                async with session.get(f"{self.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
        raise AssertionError(f"not ready after {timeout_s} s: {self.said()}")

    async def waiting(self, session: aiohttp.ClientSession) -> int:
        """Return how many records wait for a stage or a sink."""
        async with session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        lag = [line for line in lines if line.startswith("funicular_lag_records{")]
        return sum(
            int(float(line.rsplit(" ", 1)[1])) for line in lag if 'group="ingest' not in line
        )

    async def done(self, session: aiohttp.ClientSession) -> int:
        """Return how many records this process has handled and delivered: it grows with work."""
        async with session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        counts = ("funicular_stage_records_total{", "funicular_deliveries_total{")
        return sum(int(float(s.rsplit(" ", 1)[1])) for s in lines if s.startswith(counts))

    def kill(self) -> None:
        """End it with SIGKILL: no handler runs, nothing is flushed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """Ask it to stop and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def said(self) -> str:
        return (self.data / "stderr.log").read_text()[-4000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Servers:
    """The network servers' downlink addresses and the application, with a ledger of what came."""

    def __init__(self) -> None:
        self.application: dict[int, set[str]] = defaultdict(set)
        self.downlinks: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.platform: list[bytes] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/application", self._application)
        app.router.add_post("/down/ttn", self._ttn)
        app.router.add_post("/down/{device}", self._platform)
        app.router.add_post(
            "/api/v3/as/applications/{app}/devices/{device}/down/{operation}", self._tts
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _application(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self.application[body["n"]].add(request.headers["Idempotency-Key"])
        return web.Response()

    async def _ttn(self, request: web.Request) -> web.Response:
        self.downlinks["ttn"].append(orjson.loads(await request.read()))
        return web.Response(status=202)

    async def _platform(self, request: web.Request) -> web.Response:
        self.platform.append(await request.read())
        return web.Response(status=204)

    async def _tts(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        self.downlinks["tts"] += orjson.loads(await request.read())["downlinks"]
        return web.json_response({})
