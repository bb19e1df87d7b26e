"""Health and metrics of a process that has no door: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from pipeline.errors import UsageError
from pipeline.metrics import Registry


class StatusServer:
    """Answers who watches over a worker. `start`, then `stop`, each once."""

    def __init__(
        self, host: str, port: int, metrics: Registry, unready: Callable[[], str | None]
    ) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._unready = unready
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """Where it listens after `start`."""
        assert self._runner is not None, "start() comes first"
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen. UsageError: cannot listen there."""
        app = web.Application()
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._text)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror}): choose another"
                " --port, or 0 for any"
            ) from None

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, _: web.Request) -> web.Response:
        missing = self._unready()
        return web.Response(status=503 if missing else 200, text=f"{missing or 'ready'}\n")

    async def _text(self, _: web.Request) -> web.Response:
        return web.Response(text=self._metrics.text())
